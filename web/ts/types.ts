// The types that users of the package meet.

/** A build of the engine: one thread, threads over shared memory, or these with the relaxed dot product as well. */
export type BuildName = 'simd' | 'threads' | 'relaxed';

/** Number format of cached keys or values: `q8_0` takes about half of the memory of `f16`. */
export type CacheType = 'f16' | 'f32' | 'q8_0';

/** Where a model comes from: a URL, the URLs or files of a split model in order, a file, a stream, a response. */
export type ModelSource =
  | string
  | URL
  | readonly (string | URL)[]
  | Blob
  | readonly Blob[]
  | ReadableStream<Uint8Array>
  | Response;

/** What a file's header says; known long before the file is there. */
export interface ModelHeader {
  name: string;
  architecture: string;
  /** Such as "1B"; empty where the file does not say. */
  sizeLabel: string;
  /** Context length that the model was trained for. */
  contextTrained: number | null;
  layers: number | null;
  /** The tensor type that most bytes have, such as `q4_k`. */
  type: string;
  /** Weights in the files whose headers are known. */
  parameters: number;
  /** Bytes of the files. */
  fileBytes: number;
  /** Files of the model. */
  parts: number;
}

/** Memory that the model will take, in bytes; checked against `limit` before the data is fetched. */
export interface MemoryPlan {
  weights: number;
  cache: number;
  workspace: number;
  total: number;
  limit: number;
  contextLength: number;
}

/** How far loading has come. */
export interface LoadProgress {
  /** `waiting`: another tab downloads this file. `cache`: read from this browser's storage. */
  phase: 'connecting' | 'waiting' | 'download' | 'cache' | 'file' | 'retry' | 'ready';
  loaded: number;
  /** `null` where the server does not say. */
  total: number | null;
  /** Bytes per second, over the last seconds. */
  rate: number;
  secondsLeft: number | null;
  header: ModelHeader | null;
  plan: MemoryPlan | null;
  /** Why the file will not be kept in the cache, where it will not. */
  uncached: string | null;
}

export interface LoadOptions {
  /** Threads, at most; without cross-origin isolation there is one. Default: the machine's cores, up to 8. */
  threads?: number;
  signal?: AbortSignal;
  onProgress?: (progress: LoadProgress) => void;
  /** Positions of the context. Default: what the model was trained for, up to 4096. */
  contextLength?: number;
  /** Type of the cached keys. Default: `f16`. */
  cacheTypeK?: CacheType;
  /** Type of the cached values. Default: `f16`. */
  cacheTypeV?: CacheType;
  /** Keep files of URLs in this browser's storage. Default: true. */
  cache?: boolean;
  /** An engine backend by name; default: the best one. */
  backend?: string;
  /** A build of the engine by name, to compare them; default: the best one that runs on this page. */
  build?: BuildName;
}

export interface ModelInfo {
  name: string;
  architecture: string;
  type: string;
  parameters: number;
  contextLength: number;
  contextTrained: number;
  vocabulary: number;
  embeddingLength: number;
  layers: number;
  /** Whether `generate` works: an encoder makes vectors alone. */
  writesText: boolean;
  /** How the model makes a vector of a text, where it says so: it is made for `embed`. */
  pooling: Pooling | null;
  /** Whether the model has a chat template, so that `generate` takes messages. */
  chat: boolean;
  /** The names of its templates: `default`, and those that the model names, such as `tool_use`. */
  chatTemplates: string[];
  backend: string;
  threads: number;
  /** The build of the engine: `simd` has one thread. */
  build: string;
  cacheTypeK: CacheType;
  cacheTypeV: CacheType;
  weightBytes: number;
  cacheBytes: number;
  /** Memory of the engine. */
  memoryBytes: number;
  numericsVersion: number;
  /** What the file holds that was left out of account, a sentence each; empty for nearly every model. */
  notes: string[];
}

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool' | (string & {});
  content: string;
}

/** Sampling parameters by llama.cpp's names, with its defaults unless the model's author recommends others. */
export interface SamplingOptions {
  seed?: number;
  /** 0 always takes the most likely token. */
  temp?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  typ_p?: number;
  top_n_sigma?: number;
  min_keep?: number;
  xtc_probability?: number;
  xtc_threshold?: number;
  dynatemp_range?: number;
  dynatemp_exponent?: number;
  penalty_last_n?: number;
  penalty_repeat?: number;
  penalty_freq?: number;
  penalty_present?: number;
  dry_multiplier?: number;
  dry_base?: number;
  dry_allowed_length?: number;
  dry_penalty_last_n?: number;
  mirostat?: number;
  mirostat_tau?: number;
  mirostat_eta?: number;
  /** Names separated by `;`, in the order in which they run. */
  samplers?: string;
}

export interface GenerateOptions extends SamplingOptions {
  signal?: AbortSignal;
  /** With messages: the tools that the model may call, as its template takes them. */
  tools?: readonly object[];
  /** With messages: which of `info.chatTemplates`. Default: `tool_use` where tools are given and the model has it. */
  chatTemplateName?: string;
  /** Tokens at most; default: until the model ends or the context is full. */
  maxTokens?: number;
  /** Texts that end the answer; they are not given out. */
  stop?: string[];
  /** Never choose the model's end token. */
  ignoreEos?: boolean;
  /** How far the reading of the prompt has come. */
  onPrompt?: (progress: { done: number; total: number; cached: number }) => void;
}

/** One token. Text may be empty while a character is not complete; held-back text comes once more with the last token. */
export interface Piece {
  token: number;
  text: string;
}

export interface GenerationResult {
  /** Why it ended: by the model, a stop text, `maxTokens`, or for lack of room. */
  reason: 'end' | 'stop' | 'limit' | 'context-full';
  promptTokens: number;
  /** Tokens of the prompt that were in the cache already. */
  cachedTokens: number;
  tokens: number;
  promptMs: number;
  generateMs: number;
}

/** A model's digest record, as `twinfer verify` prints it. */
export interface DigestRecord {
  format: string;
  engine_version: string;
  numerics_version: number;
  /** For people. */
  backend: string;
  /** `sha256` of the files; none where a browser made it. */
  model: { name: string; sha256: string[] };
  prompt_set: number;
  cache_type_k: string;
  cache_type_v: string;
  /** SHA-256 of all logits. */
  digest: string;
  answers: { prompt: string; digest: string; tokens: number[]; sampled: number; positions: string[] }[];
}

/** What of a text becomes its vector: the mean of its tokens', the first one's, the last one's; or the scores of a reranker. */
export type Pooling = 'mean' | 'cls' | 'last' | 'none' | 'rank';

export interface EmbedOptions {
  signal?: AbortSignal;
  /** Default: the model's own. */
  pooling?: Exclude<Pooling, 'none'>;
  /** Make each vector's length 1, so that the product of two is their cosine. Default: false. */
  normalize?: boolean;
}

export interface EvaluateOptions {
  signal?: AbortSignal;
  /** Tokens that are computed together, at most. No number depends on it. Default: as many as the engine takes. */
  batchSize?: number;
}

export interface RecordOptions {
  signal?: AbortSignal;
  /** Tokens computed so far, and in all. */
  onProgress?: (done: number, total: number) => void;
}

/** What came of holding a record against this page's numbers. */
export interface Verdict {
  equal: boolean;
  /** Where the first difference is. */
  difference: string | null;
  digest: string;
}
