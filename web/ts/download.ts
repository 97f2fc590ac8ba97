// One file over HTTP: goes on by Range where a connection breaks, and notices when the file is not the same any more.

import { TwinferError, aborted } from './errors.js';

/** What is known of a file on a server. */
export interface Remote {
  url: string;
  length: number | null;
  etag: string | null;
  lastModified: string | null;
  /** SHA-256 in hexadecimal, where the server gives one. */
  sha256: string | null;
  contentType: string | null;
}

/** Attempts without a byte in between, before the connection counts as lost. */
const ATTEMPTS = 4;

export interface DownloadEvents {
  /** A new attempt after a broken connection. */
  onRetry?: () => void;
}

/** The file changed on the server: what was read before belongs to another one. */
class Changed extends TwinferError {
  constructor() {
    super('changed', 'the file on the server changed during the download; load it again');
  }
}

/** A download from byte `from` on. `open` asks the server; `bytes` gives what it sends. */
export class Download {
  remote: Remote;
  #at: number;
  #response: Response | null = null;
  /** Bytes of the present response that come before the place where we are. */
  #skip = 0;
  #attempts = 0;

  constructor(
    url: string,
    from: number,
    /** What an earlier part of the file came from. */
    known: Remote | null,
    private readonly signal: AbortSignal,
    private readonly events: DownloadEvents = {},
  ) {
    this.remote = known ?? { url, length: null, etag: null, lastModified: null, sha256: null, contentType: null };
    this.#at = from;
  }

  /** Asks the server; new attempts are made where it does not answer. */
  async open(): Promise<Remote> {
    while (this.#response === null) {
      await this.#attempt();
    }
    return this.remote;
  }

  async *bytes(): AsyncGenerator<Uint8Array> {
    for (;;) {
      await this.open();
      const body = this.#response?.body;
      this.#response = null;
      let broken: unknown = null;
      if (body) {
        const reader = body.getReader();
        try {
          for (;;) {
            const { done, value } = await reader.read();
            if (done) {
              break;
            }
            const skipped = Math.min(this.#skip, value.length);
            this.#skip -= skipped;
            if (skipped < value.length) {
              const bytes = skipped > 0 ? value.subarray(skipped) : value;
              this.#at += bytes.length;
              this.#attempts = 0;
              yield bytes;
            }
          }
        } catch (error) {
          broken = error;
        } finally {
          // Where the consumer has enough, the connection is given up.
          await reader.cancel().catch(() => undefined);
        }
      }
      const { length } = this.remote;
      if (broken === null && (length === null || this.#at >= length)) {
        return;
      }
      if (this.signal.aborted) {
        throw aborted();
      }
      this.#attempts += 1;
      if (this.#attempts >= ATTEMPTS) {
        throw broken === null
          ? new TwinferError('truncated', `the server sent ${this.#at} of ${length} bytes and ended`)
          : new TwinferError('network', `the connection broke at byte ${this.#at}: ${message(broken)}`);
      }
      await this.#pause();
    }
  }

  async #attempt(): Promise<void> {
    const from = this.#at;
    const headers = new Headers();
    if (from > 0) {
      headers.set('range', `bytes=${from}-`);
      const validator = this.remote.etag?.startsWith('"') ? this.remote.etag : this.remote.lastModified;
      // To another origin this header would need a preflight that file hosts do not answer; there the answer is
      // compared with what is known.
      if (validator && new URL(this.remote.url, location.href).origin === location.origin) {
        headers.set('if-range', validator);
      }
    }
    let response: Response;
    try {
      response = await fetch(this.remote.url, { headers, signal: this.signal, cache: 'no-store' });
    } catch (error) {
      if (this.signal.aborted) {
        throw aborted();
      }
      const what = from > 0 ? `the connection broke at byte ${from} and cannot be made again` : `${this.remote.url} cannot be reached`;
      return this.#again(new TwinferError('network', `${what}: ${message(error)}`));
    }
    if (response.status === 416 && from > 0) {
      void response.body?.cancel();
      throw new Changed();
    }
    if (!response.ok) {
      void response.body?.cancel();
      const error = new TwinferError(
        'http',
        `the server answers ${response.status} ${response.statusText} for ${this.remote.url}`.replace('  ', ' '),
        response.status,
      );
      if (response.status >= 500 || response.status === 429) {
        return this.#again(error);
      }
      throw error;
    }
    const found = describe(this.remote.url, response);
    if (!same(this.remote, found)) {
      void response.body?.cancel();
      throw new Changed();
    }
    this.remote = merge(this.remote, found);
    this.#skip = response.status === 206 ? from - rangeStart(response, from) : from;
    if (this.#skip < 0) {
      throw new TwinferError('network', 'the server sent another part of the file than was asked for');
    }
    this.#response = response;
  }

  async #again(error: TwinferError): Promise<void> {
    this.#attempts += 1;
    if (this.#attempts >= ATTEMPTS) {
      throw error;
    }
    await this.#pause();
  }

  async #pause(): Promise<void> {
    this.events.onRetry?.();
    const { signal } = this;
    await new Promise<void>((resolve, reject) => {
      const abort = () => {
        clearTimeout(timer);
        reject(aborted());
      };
      const timer = setTimeout(() => {
        signal.removeEventListener('abort', abort);
        resolve();
      }, 200 * 2 ** this.#attempts);
      signal.addEventListener('abort', abort, { once: true });
    });
  }
}

/** What a HEAD request says; `null` where the server cannot be asked. */
export async function head(url: string, signal: AbortSignal): Promise<Remote | null> {
  try {
    const response = await fetch(url, { method: 'HEAD', signal, cache: 'no-store' });
    return response.ok ? describe(url, response) : null;
  } catch {
    if (signal.aborted) {
      throw aborted();
    }
    return null;
  }
}

/** Whether two descriptions can be of the same file: nothing that both know differs. */
export function same(a: Remote, b: Remote): boolean {
  const differ = <T>(x: T | null, y: T | null) => x !== null && y !== null && x !== y;
  const weak = (etag: string | null) => etag?.replace(/^W\//, '') ?? null;
  return !differ(a.length, b.length) && !differ(weak(a.etag), weak(b.etag)) && !differ(a.lastModified, b.lastModified);
}

function merge(a: Remote, b: Remote): Remote {
  return {
    url: a.url,
    length: b.length ?? a.length,
    etag: b.etag ?? a.etag,
    lastModified: b.lastModified ?? a.lastModified,
    sha256: b.sha256 ?? a.sha256,
    contentType: b.contentType ?? a.contentType,
  };
}

function describe(url: string, response: Response): Remote {
  const { headers } = response;
  const range = /^bytes \d+-\d+\/(\d+)$/.exec(headers.get('content-range') ?? '');
  // The length of an encoded body is not the file's.
  const encoded = headers.get('content-encoding') !== null;
  const length = response.status === 206 ? range?.[1] : encoded ? null : headers.get('content-length');
  return {
    url,
    length: length === null || length === undefined ? null : Number(length),
    etag: headers.get('etag'),
    lastModified: headers.get('last-modified'),
    sha256: digest(headers, response.status === 206),
    contentType: headers.get('content-type'),
  };
}

/** RFC 9530's `Repr-Digest`, which is of the whole file, its predecessor `Digest`, and what Hugging Face says of files. */
function digest(headers: Headers, partial: boolean): string | null {
  const repr = /sha-256=:([A-Za-z0-9+/=]+):/.exec(headers.get('repr-digest') ?? '');
  const old = partial ? null : /sha-256=([A-Za-z0-9+/=]+)/i.exec(headers.get('digest') ?? '');
  const base64 = repr?.[1] ?? old?.[1];
  if (base64) {
    try {
      return Array.from(atob(base64), (c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join('');
    } catch {
      return null;
    }
  }
  const linked = /^"?([0-9a-f]{64})"?$/.exec(headers.get('x-linked-etag') ?? '');
  return linked?.[1] ?? null;
}

function rangeStart(response: Response, fallback: number): number {
  const range = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
  return range ? Number(range[1]) : fallback;
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
