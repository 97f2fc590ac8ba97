// From a source to a model: headers, the memory plan, then every byte once, straight into the engine's memory.

import { TwinferError } from './errors.js';
import type { LoadRequest } from './protocol.js';
import { BlobPart, StreamPart, UrlPart, type Part, type SourceEvents } from './sources.js';
import type { LoadProgress, MemoryPlan, ModelHeader } from './types.js';
import type { Engine, Loading, Wasm } from './wasm.js';

/** How often progress is told. */
const EVERY_MS = 100;
/** Time over which the rate is measured. */
const WINDOW_MS = 3000;

/** Progress as it is told: rate and time left follow from what was loaded when. */
class Progress {
  readonly #state: LoadProgress = {
    phase: 'connecting',
    loaded: 0,
    total: null,
    rate: 0,
    secondsLeft: null,
    header: null,
    plan: null,
    uncached: null,
  };
  #samples: [time: number, loaded: number][] = [];
  #told = 0;

  constructor(private readonly tell: (progress: LoadProgress) => void) {}

  set(change: Partial<LoadProgress>): void {
    if (change.phase !== undefined && change.phase !== this.#state.phase) {
      this.#samples = [];
    }
    Object.assign(this.#state, change);
    this.#now();
  }

  loaded(bytes: number): void {
    this.#state.loaded = bytes;
    if (performance.now() - this.#told >= EVERY_MS) {
      this.#now();
    }
  }

  #now(): void {
    const now = performance.now();
    const state = this.#state;
    this.#told = now;
    this.#samples.push([now, state.loaded]);
    while (this.#samples.length > 2 && now - (this.#samples[0]?.[0] ?? now) > WINDOW_MS) {
      this.#samples.shift();
    }
    const [time, loaded] = this.#samples[0] ?? [now, state.loaded];
    state.rate = now > time ? ((state.loaded - loaded) * 1000) / (now - time) : 0;
    state.secondsLeft = state.total !== null && state.rate > 0 ? (state.total - state.loaded) / state.rate : null;
    this.tell({ ...state });
  }
}

export interface LoadContext {
  wasm: Wasm;
  signal: AbortSignal;
  /** The next chunk of a stream that the page reads. */
  chunks: () => Promise<Uint8Array | null>;
  tell: (progress: LoadProgress) => void;
}

export async function load(request: LoadRequest, context: LoadContext): Promise<Engine> {
  const { wasm } = context;
  const progress = new Progress(context.tell);
  const events: SourceEvents = {
    phase: (phase) => progress.set({ phase }),
    uncached: (uncached) => progress.set({ uncached }),
  };
  const parts = open(request, context, events);
  const loading = new wasm.Loading(request.backend);
  try {
    const engine = await stream(loading, parts, request, context, progress);
    progress.set({ phase: 'ready' });
    return engine;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code === 'string' && ['format', 'model', 'tokenizer', 'content-type'].includes(code)) {
      await Promise.all(parts.map((part) => part.refuse()));
    }
    throw error;
  }
}

function open({ source, cache }: LoadRequest, { wasm, signal, chunks }: LoadContext, events: SourceEvents): Part[] {
  switch (source.kind) {
    case 'urls':
      return source.urls.map((url) => new UrlPart(url, cache, wasm.Sha256, signal, events));
    case 'blobs':
      return source.blobs.map((blob) => new BlobPart(blob, events));
    case 'stream':
      return [new StreamPart(source.size, source.contentType, chunks, events)];
  }
}

/** A file being read: its bytes, how many came, and those of the last chunk that are not used yet. */
interface Reading {
  bytes: AsyncGenerator<Uint8Array>;
  position: number;
  rest: Uint8Array;
}

async function stream(
  loading: Loading,
  parts: Part[],
  request: LoadRequest,
  { wasm, signal }: LoadContext,
  progress: Progress,
): Promise<Engine> {
  // One file is read through; of several, the headers are read first, since all of them are needed for the plan.
  let first: Reading | null = null;
  try {
    for (const part of parts) {
      const reading: Reading = { bytes: part.read(), position: 0, rest: new Uint8Array() };
      first = reading;
      await readHeader(loading, part, reading, signal);
      const header = JSON.parse(loading.describe()) as ModelHeader;
      part.named(header.name);
      progress.set({ header, total: sum(parts) });
      if (parts.length > 1) {
        await reading.bytes.return(undefined);
        first = null;
      }
    }
    const plan = JSON.parse(loading.plan(request.contextLength, request.cacheTypeK, request.cacheTypeV)) as MemoryPlan;
    progress.set({ plan });

    let before = 0;
    for (const [index, part] of parts.entries()) {
      const reading: Reading = first ?? { bytes: part.read(), position: 0, rest: new Uint8Array() };
      first = reading;
      take(loading, wasm.memory, index, reading);
      for await (const chunk of reading.bytes) {
        check(signal);
        reading.rest = chunk;
        take(loading, wasm.memory, index, reading);
        progress.loaded(before + reading.position);
      }
      before += reading.position;
      first = null;
      if (loading.next() && loading.part === index) {
        const length = part.size === null ? '' : ` of ${part.size}`;
        throw new TwinferError(
          'truncated',
          `the data ends after ${reading.position}${length} bytes, and the model goes on to byte ${loading.offset} and beyond`,
        );
      }
    }
    check(signal);
    return loading.finish();
  } finally {
    await first?.bytes.return(undefined);
  }
}

async function readHeader(loading: Loading, part: Part, reading: Reading, signal: AbortSignal): Promise<void> {
  let begun = false;
  const fault = (error: unknown): unknown => {
    const type = part.contentType?.split(';')[0] ?? '';
    const page = type.startsWith('text/') || type === 'application/json' || type === 'application/xml';
    return page && reading.position === 0
      ? new TwinferError('content-type', `the server sent ${type}, not a model file`)
      : error;
  };
  for (;;) {
    const { done, value } = await reading.bytes.next();
    check(signal);
    try {
      if (!begun) {
        loading.beginHeader(part.size);
        begun = true;
      }
      if (done) {
        loading.endHeader();
        throw new TwinferError('truncated', 'the file ends inside its header');
      }
      const consumed = loading.pushHeader(value);
      if (consumed !== undefined) {
        reading.position += consumed;
        reading.rest = value.subarray(consumed);
        return;
      }
      reading.position += value.length;
    } catch (error) {
      throw fault(error);
    }
  }
}

/** Copies what is wanted of the chunk into the engine's memory. */
function take(loading: Loading, memory: WebAssembly.Memory, part: number, reading: Reading): void {
  while (reading.rest.length > 0) {
    const wanted = loading.next() && loading.part === part;
    const ahead = wanted ? loading.offset - reading.position : Infinity;
    if (ahead >= reading.rest.length) {
      reading.position += reading.rest.length;
      reading.rest = new Uint8Array();
      return;
    }
    const n = Math.min(loading.spaceLength, reading.rest.length - ahead);
    // Addresses are unsigned, and the buffer is another one whenever the memory has grown.
    new Uint8Array(memory.buffer, loading.spaceAddress >>> 0, n).set(reading.rest.subarray(ahead, ahead + n));
    reading.position += ahead + n;
    reading.rest = reading.rest.subarray(ahead + n);
    loading.filled(n);
  }
}

function check(signal: AbortSignal): void {
  if (signal.aborted) {
    throw new TwinferError('aborted', 'the operation was aborted');
  }
}

function sum(parts: Part[]): number | null {
  let total = 0;
  for (const { size } of parts) {
    if (size === null) {
      return null;
    }
    total += size;
  }
  return total;
}
