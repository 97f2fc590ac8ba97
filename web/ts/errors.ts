// Errors of the package: an `Error` with a code that programs can tell apart.

/** What went wrong. The engine's own codes come first, then those of the way to it. */
export type ErrorCode =
  | 'format' // the bytes are not a GGUF file
  | 'model' // a key or tensor is missing, does not fit the others, or is larger than what is read
  | 'split' // the files of a split model do not go together, or some are missing
  | 'unsupported' // an architecture or tensor type that the engine does not run
  | 'tokenizer'
  | 'template'
  | 'limit' // more was asked for than can be
  | 'memory' // more than a page can have
  | 'input' // an argument that cannot be used
  | 'not-finite' // a number became infinite: the weights are damaged
  | 'context-full'
  | 'full' // what is needed is held by other sequences
  | 'worker' // a thread failed, or cannot compute as it must
  | 'engine' // the engine contradicts itself: report it
  | 'http' // the server answered with an error status
  | 'network' // the connection failed, also after new attempts
  | 'content-type' // the server sent a page in place of a model
  | 'truncated' // the data ended before the model did
  | 'digest' // the file is not the one that the server has a digest of
  | 'changed' // the file on the server changed during the download
  | 'aborted'
  | 'crashed' // the engine's worker ended
  | 'freed'; // the model was freed

/** Every rejection of this package is one of these. */
export class TwinferError extends Error {
  readonly code: ErrorCode;
  /** HTTP status, where the code is `http`. */
  readonly status: number | undefined;

  constructor(code: ErrorCode, message: string, status?: number) {
    super(message);
    this.name = code === 'aborted' ? 'AbortError' : 'TwinferError';
    this.code = code;
    this.status = status;
  }
}

/** An error as it crosses between workers. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  status?: number;
}

export function aborted(): TwinferError {
  return new TwinferError('aborted', 'the operation was aborted');
}

/** The error as a plain object; what has no code of ours is a fault of the engine's. */
export function toPlain(error: unknown): PlainError {
  if (error instanceof TwinferError) {
    return error.status === undefined
      ? { code: error.code, message: error.message }
      : { code: error.code, message: error.message, status: error.status };
  }
  if (error instanceof Error) {
    const code = (error as Error & { code?: unknown }).code;
    if (error.name === 'AbortError') {
      return { code: 'aborted', message: 'the operation was aborted' };
    }
    return { code: typeof code === 'string' ? (code as ErrorCode) : 'crashed', message: error.message };
  }
  return { code: 'crashed', message: String(error) };
}

export function fromPlain(error: PlainError): TwinferError {
  return new TwinferError(error.code, error.message, error.status);
}
