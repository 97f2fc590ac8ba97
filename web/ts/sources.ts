// Files of a model, whatever they come from, as bytes in order.

import { Slot, room, type Held, type SyncFile } from './cache.js';
import { Download, head, same, type Remote } from './download.js';
import { TwinferError } from './errors.js';
import type { LoadProgress } from './types.js';
import type { Wasm } from './wasm.js';

/** What a source tells of itself while it is read. */
export interface SourceEvents {
  phase: (phase: LoadProgress['phase']) => void;
  uncached: (why: string) => void;
}

/** One file. */
export interface Part {
  /** Bytes, once the source knows. */
  size: number | null;
  contentType: string | null;
  /** Its bytes from the first one on. A part that can be read again starts anew. */
  read(): AsyncGenerator<Uint8Array>;
  /** The header was read: the name under which the file is listed. */
  named(name: string): void;
  /** The bytes are no model: nothing of them is kept. */
  refuse(): Promise<void>;
}

/** Bytes that are read from a file at a time. */
const SLICE = 4 << 20;

async function* slices(file: Blob): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.size; at += SLICE) {
    yield new Uint8Array(await file.slice(at, at + SLICE).arrayBuffer());
  }
}

/** A file that a person chose. */
export class BlobPart implements Part {
  readonly size: number;
  readonly contentType = null;

  constructor(
    private readonly blob: Blob,
    private readonly events: SourceEvents,
  ) {
    this.size = blob.size;
  }

  read(): AsyncGenerator<Uint8Array> {
    this.events.phase('file');
    return slices(this.blob);
  }

  named(): void {}

  async refuse(): Promise<void> {}
}

/** A stream that the page reads; it can be read once. */
export class StreamPart implements Part {
  constructor(
    readonly size: number | null,
    readonly contentType: string | null,
    private readonly chunks: () => Promise<Uint8Array | null>,
    private readonly events: SourceEvents,
  ) {}

  async *read(): AsyncGenerator<Uint8Array> {
    this.events.phase('download');
    for (;;) {
      const chunk = await this.chunks();
      if (chunk === null) {
        return;
      }
      yield chunk;
    }
  }

  named(): void {}

  async refuse(): Promise<void> {}
}

/** A URL, kept in the cache where there is one. */
export class UrlPart implements Part {
  size: number | null = null;
  contentType: string | null = null;
  #name = '';
  #slot: Slot | null = null;

  constructor(
    private readonly url: string,
    private readonly cached: boolean,
    private readonly sha256: Wasm['Sha256'],
    private readonly signal: AbortSignal,
    private readonly events: SourceEvents,
  ) {}

  named(name: string): void {
    this.#name = name;
  }

  async refuse(): Promise<void> {
    const held = await this.#slot?.lock('exclusive', false, this.signal);
    if (held) {
      await this.#slot?.remove().finally(() => held.release());
    }
  }

  async *read(): AsyncGenerator<Uint8Array> {
    this.events.phase('connecting');
    this.#slot = this.cached ? await Slot.open(this.url) : null;
    const slot = this.#slot;
    if (slot === null) {
      if (this.cached) {
        this.events.uncached('this browser has no storage for it');
      }
      yield* this.#uncached();
      return;
    }
    const shared = await this.#take(slot, 'shared');
    try {
      const file = await this.#valid(slot);
      if (file) {
        this.events.phase('cache');
        this.size = file.size;
        yield* slices(file);
        return;
      }
    } finally {
      await shared.release();
    }
    const alone = await this.#take(slot, 'exclusive');
    try {
      // Another tab may have finished it while this one waited.
      const whole = await slot.whole();
      if (whole && (await this.#valid(slot))) {
        this.events.phase('cache');
        this.size = whole.file.size;
        yield* slices(whole.file);
        return;
      }
      if (whole) {
        await slot.remove();
      }
      yield* this.#download(slot);
    } finally {
      await alone.release();
    }
  }

  async #take(slot: Slot, mode: 'shared' | 'exclusive'): Promise<Held> {
    const held = await slot.lock(mode, false, this.signal);
    if (held) {
      return held;
    }
    this.events.phase('waiting');
    const later = await slot.lock(mode, true, this.signal);
    if (later === null) {
      throw new TwinferError('crashed', 'the lock of the cache was not given');
    }
    return later;
  }

  /** The whole file, if the server's is still the same, or cannot be asked. */
  async #valid(slot: Slot): Promise<File | null> {
    const whole = await slot.whole();
    if (whole === null) {
      return null;
    }
    const now = await head(this.url, this.signal);
    return now === null || same(now, whole.entry) ? whole.file : null;
  }

  async *#uncached(): AsyncGenerator<Uint8Array> {
    const download = this.#from(0, null);
    this.#learn(await download.open());
    this.events.phase('download');
    const hash = download.remote.sha256 === null ? null : new this.sha256();
    for await (const chunk of download.bytes()) {
      hash?.update(chunk);
      yield chunk;
    }
    this.#check(hash?.hex() ?? null, download.remote);
  }

  /** Downloads into the cache, going on where an earlier download ended. */
  async *#download(slot: Slot): AsyncGenerator<Uint8Array> {
    const file = await slot.part();
    if (file === null) {
      this.events.uncached('this browser cannot write to its storage');
      yield* this.#uncached();
      return;
    }
    let open: SyncFile | null = file;
    const close = () => {
      open?.flush();
      open?.close();
      open = null;
    };
    try {
      const entry = await slot.entry();
      let have = entry === null ? 0 : file.getSize();
      if (entry !== null && entry.length !== null && have > entry.length) {
        have = 0;
      }
      let download = this.#from(have, have > 0 ? entry : null);
      try {
        if (have === 0 || have !== entry?.length) {
          await download.open();
        }
      } catch (error) {
        if (!(error instanceof TwinferError && error.code === 'changed')) {
          throw error;
        }
        // Nothing of the old file was used yet, so this is a download like any other.
        have = 0;
        download = this.#from(0, null);
        await download.open();
      }
      const { remote } = download;
      this.#learn(remote);
      file.truncate(have);
      await slot.describe(remote, entry?.name ?? '');
      const hash = remote.sha256 === null ? null : new this.sha256();

      this.events.phase('cache');
      for (let at = 0; at < have; ) {
        const bytes = new Uint8Array(Math.min(SLICE, have - at));
        const n = file.read(bytes, { at });
        if (n === 0) {
          throw new TwinferError('truncated', 'the cached part of the file is shorter than it was');
        }
        at += n;
        hash?.update(bytes.subarray(0, n));
        yield bytes.subarray(0, n);
      }

      const free = await room();
      if (remote.length !== null && free !== null && remote.length - have > free) {
        this.events.uncached('there is not enough room in this browser’s storage');
        close();
        await slot.remove();
      }
      this.events.phase('download');
      let at = have;
      if (at !== remote.length) {
        for await (const chunk of download.bytes()) {
          try {
            open?.write(chunk, { at });
          } catch (error) {
            this.events.uncached(`the storage took no more: ${String(error)}`);
            close();
            await slot.remove();
          }
          at += chunk.length;
          hash?.update(chunk);
          yield chunk;
        }
      }
      try {
        this.#check(hash?.hex() ?? null, download.remote);
      } catch (error) {
        close();
        await slot.remove();
        throw error;
      }
      if (open !== null) {
        close();
        await slot.describe({ ...download.remote, length: at }, this.#name);
        await slot.commit();
      }
    } finally {
      close();
    }
  }

  #from(at: number, known: Remote | null): Download {
    return new Download(this.url, at, known, this.signal, {
      onRetry: () => this.events.phase('retry'),
    });
  }

  #learn(remote: Remote): void {
    this.size = remote.length;
    this.contentType = remote.contentType;
  }

  #check(found: string | null, remote: Remote): void {
    if (found !== null && remote.sha256 !== null && found !== remote.sha256) {
      throw new TwinferError(
        'digest',
        `the file is damaged: its SHA-256 is ${found}, the server says ${remote.sha256}; nothing of it was kept`,
      );
    }
  }
}
