// Messages between the page and its workers.

import type { PlainError } from './errors.js';
import type { BuildName, CacheType, DigestRecord, LoadProgress, ModelInfo, Pooling } from './types.js';

/** A source as it crosses: streams stay on the page and send their chunks. */
export type PlainSource =
  | { kind: 'urls'; urls: string[] }
  | { kind: 'blobs'; blobs: Blob[] }
  | { kind: 'stream'; size: number | null; contentType: string | null };

export interface LoadRequest {
  source: PlainSource;
  contextLength: number;
  cacheTypeK: CacheType;
  cacheTypeV: CacheType;
  cache: boolean;
  backend: string | null;
}

/** Texts or their tokens; of each text there is one vector, or one for each token. */
export interface EmbedRequest {
  texts: (string | number[])[];
  pooling: Pooling | null;
  normalize: boolean;
}

/** What the page may call, with argument and result. */
export interface Calls {
  load: [LoadRequest, ModelInfo];
  generate: [Record<string, unknown>, { reason: string; tail: string }];
  tokenize: [{ text: string; addSpecial: boolean; parseSpecial: boolean }, number[]];
  detokenize: [{ tokens: number[]; special: boolean }, string];
  /** `wanted`: `digest`, `trace`, or the place whose values are wanted. */
  evaluate: [{ tokens: number[]; batchSize: number; wanted: string }, string];
  embed: [EmbedRequest, Float32Array[][]];
  record: [string | null, { record: DigestRecord; difference: string | null }];
}

export type Event =
  | { type: 'progress'; progress: LoadProgress }
  | { type: 'prompt'; done: number; total: number; cached: number }
  | { type: 'recorded'; done: number; total: number }
  | { type: 'token'; token: number; text: string }
  | { type: 'wanted' }; // a stream's next chunk

export type ToWorker =
  | { type: 'start'; build: BuildName; threads: number; lock: string }
  | { type: 'call'; id: number; op: keyof Calls; argument: unknown }
  | { type: 'abort'; id: number }
  | { type: 'chunk'; id: number; bytes: Uint8Array | null; error: PlainError | null };

export type FromWorker =
  | { type: 'ready'; module: WebAssembly.Module | null; memory: WebAssembly.Memory | null }
  | { type: 'result'; id: number; value: unknown }
  | { type: 'error'; id: number; error: PlainError }
  | { type: 'event'; id: number; event: Event }
  | { type: 'dead'; message: string };

export type ToThread = { type: 'enter'; build: BuildName; module: WebAssembly.Module; memory: WebAssembly.Memory; index: number };
export type FromThread = { type: 'dead'; message: string };
