// Model files kept in this browser's private storage (OPFS).
//
// Per URL, named by its hash: `KEY.json` says what the file is, `KEY.part` is a download under way, `KEY.gguf` is whole:
// a part gets that name only after its length, and its digest where the server gives one, were found right. So nothing
// that a broken connection, a closed tab or a full disk leaves behind is ever taken for a model.
//
// Tabs agree by Web Locks: who writes an entry has it alone, readers share it.

import { TwinferError } from './errors.js';
import type { Remote } from './download.js';

const FOLDER = 'twinfer-models';

/** What is kept of a file beside its bytes. */
export interface Entry extends Remote {
  key: string;
  /** The model's own name, once its header was read. */
  name: string;
  /** Milliseconds since 1970. */
  added: number;
}

/** A file in the cache, or the beginning of one. */
export interface CachedModel {
  url: string;
  name: string;
  /** Bytes that are here. */
  bytes: number;
  /** Bytes of the whole file. */
  length: number | null;
  complete: boolean;
  added: number;
}

/** The file access that workers have; the types of the page's library lack it. */
export interface SyncFile {
  read(buffer: Uint8Array, options: { at: number }): number;
  write(buffer: Uint8Array, options: { at: number }): number;
  getSize(): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

type FileHandle = FileSystemFileHandle & {
  createSyncAccessHandle?: () => Promise<SyncFile>;
  move?: (name: string) => Promise<void>;
};

async function folder(): Promise<FileSystemDirectoryHandle | null> {
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(FOLDER, { create: true });
  } catch {
    return null;
  }
}

async function keyOf(url: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest, 0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function missing<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'NotFoundError') {
      return null;
    }
    throw error;
  }
}

/** A lock that is held until `release` is called; it is free when that has settled. */
export interface Held {
  release: () => Promise<void>;
}

/** Takes a lock; `null` where it is not free and `wait` is false. */
export function lock(
  name: string,
  mode: 'shared' | 'exclusive',
  wait: boolean,
  signal: AbortSignal,
): Promise<Held | null> {
  return new Promise((resolve, reject) => {
    const options: LockOptions = wait ? { mode, signal } : { mode, ifAvailable: true };
    const ended: Promise<unknown> = navigator.locks.request(name, options, (granted) => {
      if (granted === null) {
        resolve(null);
        return undefined;
      }
      return new Promise<void>((end) => {
        resolve({
          release: async () => {
            end();
            await ended;
          },
        });
      });
    });
    ended.catch(reject);
  });
}

/** One URL's place in the cache. Every method but `lock` is called with the lock held. */
export class Slot {
  private constructor(
    private readonly folder: FileSystemDirectoryHandle,
    readonly url: string,
    readonly key: string,
  ) {}

  /** `null` where this browser has no such storage. */
  static async open(url: string): Promise<Slot | null> {
    if (typeof navigator.locks === 'undefined' || typeof crypto.subtle === 'undefined') {
      return null;
    }
    const found = await folder();
    return found && new Slot(found, url, await keyOf(url));
  }

  lock(mode: 'shared' | 'exclusive', wait: boolean, signal: AbortSignal): Promise<Held | null> {
    return lock(`${FOLDER}/${this.key}`, mode, wait, signal);
  }

  async entry(): Promise<Entry | null> {
    return readEntry(this.folder, this.key);
  }

  async describe(remote: Remote, name: string): Promise<void> {
    const entry: Entry = { ...remote, url: this.url, key: this.key, name, added: Date.now() };
    const handle = await this.folder.getFileHandle(`${this.key}.json`, { create: true });
    const writable = await handle.createWritable();
    await writable.write(JSON.stringify(entry));
    await writable.close();
  }

  /** The whole file, if it is here; one of another length than it had is thrown away. */
  async whole(): Promise<{ file: File; entry: Entry } | null> {
    const entry = await this.entry();
    const handle = await missing(this.folder.getFileHandle(`${this.key}.gguf`));
    if (handle === null || entry === null) {
      return null;
    }
    const file = await handle.getFile();
    return entry.length === null || file.size === entry.length ? { file, entry } : null;
  }

  /** The part under way, made if need be; `null` where it cannot be written to. */
  async part(): Promise<SyncFile | null> {
    try {
      const handle: FileHandle = await this.folder.getFileHandle(`${this.key}.part`, { create: true });
      if (!handle.createSyncAccessHandle || !handle.move) {
        return null;
      }
      return await handle.createSyncAccessHandle();
    } catch {
      return null;
    }
  }

  /** The part, closed, is whole and right: gives it its name. */
  async commit(): Promise<void> {
    const handle: FileHandle = await this.folder.getFileHandle(`${this.key}.part`);
    await handle.move?.(`${this.key}.gguf`);
  }

  /** Throws everything of this URL away. */
  async remove(): Promise<void> {
    for (const suffix of ['gguf', 'part', 'json']) {
      await missing(this.folder.removeEntry(`${this.key}.${suffix}`));
    }
  }
}

async function readEntry(from: FileSystemDirectoryHandle, key: string): Promise<Entry | null> {
  const handle = await missing(from.getFileHandle(`${key}.json`));
  if (handle === null) {
    return null;
  }
  try {
    const entry = JSON.parse(await (await handle.getFile()).text()) as Entry;
    return typeof entry.url === 'string' ? entry : null;
  } catch {
    return null;
  }
}

/** Bytes that may still be stored; `null` where the browser does not say. */
export async function room(): Promise<number | null> {
  const { quota, usage } = await navigator.storage.estimate();
  return quota === undefined || usage === undefined ? null : quota - usage;
}

/** The models in this browser's storage. */
export const cache = {
  /** All of them, the newest first. */
  async list(): Promise<CachedModel[]> {
    const found = await folder();
    const models: CachedModel[] = [];
    if (found === null) {
      return models;
    }
    const names: string[] = [];
    for await (const name of (found as unknown as { keys(): AsyncIterable<string> }).keys()) {
      names.push(name);
    }
    for (const name of names.filter((name) => name.endsWith('.json'))) {
      const key = name.slice(0, -'.json'.length);
      const entry = await readEntry(found, key);
      const complete = names.includes(`${key}.gguf`);
      if (entry === null || !(complete || names.includes(`${key}.part`))) {
        continue;
      }
      const handle = await missing(found.getFileHandle(`${key}.${complete ? 'gguf' : 'part'}`));
      const bytes = handle === null ? 0 : (await handle.getFile()).size;
      models.push({ url: entry.url, name: entry.name, bytes, length: entry.length, complete, added: entry.added });
    }
    return models.sort((a, b) => b.added - a.added);
  },

  /** Deletes what is kept of a URL. Fails while a tab is loading it. */
  async delete(url: string): Promise<void> {
    const slot = await Slot.open(new URL(url, location.href).href);
    if (slot === null) {
      return;
    }
    const held = await slot.lock('exclusive', false, new AbortController().signal);
    if (held === null) {
      throw new TwinferError('input', 'the file is in use: a tab is loading it');
    }
    try {
      await slot.remove();
    } finally {
      await held.release();
    }
  },

  /** Bytes used and available to this page, as the browser estimates them. */
  async usage(): Promise<{ used: number; quota: number }> {
    const { usage = 0, quota = 0 } = await navigator.storage.estimate();
    return { used: usage, quota };
  },
};
