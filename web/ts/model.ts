// A model in this page: loading, generating, tokens, digests.

import { TwinferError, aborted } from './errors.js';
import { choose } from './features.js';
import { Host } from './host.js';
import type { Calls, Event, LoadRequest, PlainSource } from './protocol.js';
import type {
  DigestRecord,
  EmbedOptions,
  EvaluateOptions,
  GenerateOptions,
  GenerationResult,
  LoadOptions,
  Message,
  ModelInfo,
  ModelSource,
  Piece,
  RecordOptions,
  Verdict,
} from './types.js';

/** A loaded model. Its engine lives in a worker; the page's thread only passes messages. */
export class Model {
  #host: Host;
  #info: ModelInfo;

  private constructor(
    host: Host,
    info: ModelInfo,
    private readonly source: ModelSource,
    private readonly options: LoadOptions,
  ) {
    this.#host = host;
    this.#info = info;
  }

  /** Loads a model; rejects with a {@link TwinferError}. */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
    const [host, info] = await open(source, options);
    return new Model(host, info, source, options);
  }

  /** What the model is and what it takes. */
  get info(): ModelInfo {
    return this.#info;
  }

  /** Settled when the engine has ended: with the error, or `null` after `free`. */
  get ended(): Promise<TwinferError | null> {
    return this.#host.ended;
  }

  /** Loads the model again after its engine ended. Streams and responses cannot be read twice. */
  async reload(options: Pick<LoadOptions, 'signal' | 'onProgress'> = {}): Promise<void> {
    this.#host.end();
    [this.#host, this.#info] = await open(this.source, { ...this.options, signal: undefined, ...options });
  }

  /** Continues a text or answers a conversation. */
  generate(prompt: string | readonly Message[], options: GenerateOptions = {}): Generation {
    return new Generation(this.#host, typeof prompt === 'string' ? { prompt } : { messages: prompt }, options);
  }

  /** Continues token ids as they are. */
  generateFromTokens(tokens: readonly number[], options: GenerateOptions = {}): Generation {
    return new Generation(this.#host, { tokens }, options);
  }

  /** Token ids of a text; by default with the special tokens that the model asks for. */
  tokenize(
    text: string,
    { addSpecial = true, parseSpecial = true }: { addSpecial?: boolean; parseSpecial?: boolean } = {},
  ): Promise<number[]> {
    return this.#host.call('tokenize', { text, addSpecial, parseSpecial });
  }

  /** Text of token ids. */
  detokenize(tokens: readonly number[], { special = false }: { special?: boolean } = {}): Promise<string> {
    return this.#host.call('detokenize', { tokens: [...tokens], special });
  }

  /**
   * Vectors of texts, or of token ids as they are. A text's vector does not depend on the others, nor on what computes it: it is the
   * one that `twinfer embed` prints.
   */
  async embed(
    texts: readonly (string | readonly number[])[],
    { signal, pooling, normalize = false }: EmbedOptions = {},
  ): Promise<Float32Array[]> {
    const request = {
      texts: texts.map((text) => (typeof text === 'string' ? text : [...text])),
      pooling: pooling ?? null,
      normalize,
    };
    return (await this.#host.call('embed', request, { signal })).flat();
  }

  /** SHA-256 of all logits of these tokens: what `twinfer eval --tokens` prints on a server. */
  digest(tokens: readonly number[], options: EvaluateOptions = {}): Promise<string> {
    return this.#evaluate(tokens, 'digest', options);
  }

  /**
   * SHA-256 of what every operation made of each of these tokens: the text that `twinfer eval --tokens … --trace-ops FILE` writes.
   * Where digests differ, the first line that differs says where a fault is (`--trace-against FILE` finds it).
   */
  trace(tokens: readonly number[], options: EvaluateOptions = {}): Promise<string> {
    return this.#evaluate(tokens, 'trace', options);
  }

  /** What one operation made of one position, `POSITION:LAYER:OP`: the text that `twinfer eval --trace-values` prints. */
  traceValues(tokens: readonly number[], place: string, options: EvaluateOptions = {}): Promise<string> {
    return this.#evaluate(tokens, place, options);
  }

  #evaluate(tokens: readonly number[], wanted: string, { signal, batchSize }: EvaluateOptions): Promise<string> {
    return this.#host.call('evaluate', { tokens: [...tokens], batchSize: batchSize ?? 0, wanted }, { signal });
  }

  /** The model's digest record: what `twinfer verify` prints, but for the file's hash, which is not known here. */
  async record(options: RecordOptions = {}): Promise<DigestRecord> {
    return (await this.#record(null, options)).record;
  }

  /**
   * Computes the same as a record that was made elsewhere, by this method's counterpart or by `twinfer verify`, and compares. Rejects
   * with the code `input` where it cannot be compared: another version of the numbers, or no record at all.
   */
  async verify(record: DigestRecord, options: RecordOptions = {}): Promise<Verdict> {
    const { record: found, difference } = await this.#record(JSON.stringify(record), options);
    return { equal: difference === null, difference, digest: found.digest };
  }

  #record(against: string | null, { signal, onProgress }: RecordOptions): Promise<Calls['record'][1]> {
    return this.#host.call('record', against, {
      signal,
      onEvent: (event) => {
        if (event.type === 'recorded') {
          onProgress?.(event.done, event.total);
        }
      },
    });
  }

  /** Ends the engine and gives its memory back. What is pending is rejected. */
  free(): void {
    this.#host.end();
  }
}

async function open(source: ModelSource, options: LoadOptions): Promise<[Host, ModelInfo]> {
  if (options.signal?.aborted) {
    throw aborted();
  }
  const [plain, reader] = toPlainSource(source);
  const { build, threads } = choose(options.threads, options.build);
  const host = await Host.start(build, threads, options.signal);
  const request: LoadRequest = {
    source: plain,
    contextLength: options.contextLength ?? 0,
    cacheTypeK: options.cacheTypeK ?? 'f16',
    cacheTypeV: options.cacheTypeV ?? 'f16',
    cache: options.cache ?? true,
    backend: options.backend ?? null,
  };
  const call = {
    signal: options.signal,
    onEvent: (event: Event) => {
      if (event.type === 'progress') {
        options.onProgress?.(event.progress);
      }
    },
  };
  try {
    const info = await (reader ? host.feed(request, reader, call) : host.call('load', request, call));
    return [host, info];
  } catch (error) {
    host.end();
    throw error;
  }
}

function toPlainSource(source: ModelSource): [PlainSource, ReadableStreamDefaultReader<Uint8Array> | null] {
  const absolute = (url: string | URL) => {
    try {
      return new URL(url, location.href).href;
    } catch {
      throw new TwinferError('input', `${String(url)} is not a URL`);
    }
  };
  const input = (what: string) => new TwinferError('input', what);
  if (typeof source === 'string' || source instanceof URL) {
    return [{ kind: 'urls', urls: [absolute(source)] }, null];
  }
  if (source instanceof Blob) {
    return [{ kind: 'blobs', blobs: [source] }, null];
  }
  if (source instanceof ReadableStream) {
    return [{ kind: 'stream', size: null, contentType: null }, source.getReader()];
  }
  if (source instanceof Response) {
    if (!source.ok) {
      throw new TwinferError('http', `the server answered ${source.status} ${source.statusText}`, source.status);
    }
    if (!source.body || source.bodyUsed) {
      throw input('the response has no body, or it was read already');
    }
    const length = source.headers.get('content-encoding') === null ? source.headers.get('content-length') : null;
    const size = length === null ? null : Number(length);
    return [{ kind: 'stream', size, contentType: source.headers.get('content-type') }, source.body.getReader()];
  }
  if (!Array.isArray(source) || source.length === 0) {
    throw input('a model is loaded from a URL, a list of URLs, a File, a list of Files, a stream or a response');
  }
  const blobs = source.filter((item) => item instanceof Blob);
  if (blobs.length === source.length) {
    return [{ kind: 'blobs', blobs }, null];
  }
  if (blobs.length > 0) {
    throw input('the files of a model are all URLs or all files');
  }
  return [{ kind: 'urls', urls: (source as (string | URL)[]).map(absolute) }, null];
}

/** An answer on its way: iterate over it for the tokens. Leaving the loop ends it. */
export class Generation implements AsyncIterable<Piece> {
  /** How it ended, with counts and times; rejects with what iterating throws. */
  readonly result: Promise<GenerationResult>;
  readonly #controller = new AbortController();
  readonly #queue: Piece[] = [];
  #wake: () => void = () => undefined;
  #settled = false;

  constructor(host: Host, prompt: Record<string, unknown>, options: GenerateOptions) {
    const { signal, onPrompt, tools, chatTemplateName, maxTokens, stop, ignoreEos, ...sampling } = options;
    const outer = () => this.#controller.abort();
    if (signal?.aborted) {
      outer();
    }
    signal?.addEventListener('abort', outer, { once: true });
    const request = {
      ...prompt,
      ...sampling,
      seed: sampling.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
      tools,
      chat_template_name: chatTemplateName,
      max_tokens: maxTokens,
      stop,
      ignore_eos: ignoreEos,
    };
    const counts = { promptTokens: 0, cachedTokens: 0, tokens: 0 };
    const begun = performance.now();
    let read = begun;
    let last = -1;
    this.result = host
      .call('generate', request, {
        signal: this.#controller.signal,
        onEvent: (event) => {
          if (event.type === 'prompt') {
            read = performance.now();
            counts.promptTokens = event.total;
            counts.cachedTokens = event.cached;
            onPrompt?.({ done: event.done, total: event.total, cached: event.cached });
          } else if (event.type === 'token') {
            counts.tokens += 1;
            last = event.token;
            this.#push({ token: event.token, text: event.text });
          }
        },
      })
      .then(({ reason, tail }) => {
        if (tail !== '') {
          this.#push({ token: last, text: tail });
        }
        return {
          reason: reason as GenerationResult['reason'],
          ...counts,
          promptMs: read - begun,
          generateMs: performance.now() - read,
        };
      })
      .finally(() => {
        signal?.removeEventListener('abort', outer);
        this.#settled = true;
        this.#wake();
      });
    // Whoever iterates gets the error there; nobody need ask for the result.
    this.result.catch(() => undefined);
  }

  /** Ends the answer at once. */
  abort(): void {
    this.#controller.abort();
  }

  #push(piece: Piece): void {
    this.#queue.push(piece);
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Piece, void, undefined> {
    try {
      for (;;) {
        const aborted = this.#controller.signal.aborted;
        const piece = aborted ? undefined : this.#queue.shift();
        if (piece !== undefined) {
          yield piece;
        } else if (this.#settled || aborted) {
          await this.result;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.abort();
    }
  }

  /** All of the text. */
  async text(): Promise<string> {
    let text = '';
    for await (const piece of this) {
      text += piece.text;
    }
    return text;
  }
}
