// A server that misbehaves on demand. What a request gets is asked for in its query:
//
//   isolated=1       cross-origin isolation headers
//   status=404       this status
//   type=text/html   this content type
//   cut=0.3          the connection breaks after this share of the file, for the first `times` requests (default 1)
//   truncate=0.5     every response ends there, whatever Content-Length and Range say
//   corrupt=1000     the byte at this offset is flipped
//   digest=1         the true SHA-256 of the file as Repr-Digest
//   rate=100000      bytes per second
//   etag=b           this ETag in place of the one that follows from the file
//   norange=1        Range is ignored
//   nolength=1       no Content-Length
//
// Every request is noted, so that tests can see what was asked for.

import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
  '.gguf': 'application/octet-stream',
};

export interface Noted {
  method: string;
  path: string;
  range: string | undefined;
  ifRange: string | undefined;
}

export class TestServer {
  readonly requests: Noted[] = [];
  /** URL path prefix to directory. */
  readonly #roots: Record<string, string>;
  readonly #isolated: boolean;
  readonly #server: Server;
  readonly #cuts = new Map<string, number>();

  private constructor(roots: Record<string, string>, isolated: boolean) {
    this.#roots = roots;
    this.#isolated = isolated;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  static async start(roots: Record<string, string>, isolated: boolean): Promise<TestServer> {
    const server = new TestServer(roots, isolated);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get origin(): string {
    return `http://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Requests of a path since the last call. */
  take(path: string): Noted[] {
    const found = this.requests.filter((request) => request.path === path);
    this.requests.length = 0;
    return found;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #file(path: string): string | null {
    for (const [prefix, root] of Object.entries(this.#roots)) {
      if (path.startsWith(prefix)) {
        const rest = normalize(decodeURIComponent(path.slice(prefix.length)));
        const file = join(root, rest === '.' || rest === '/' ? 'index.html' : rest);
        return file.startsWith(root) && statSync(file, { throwIfNoEntry: false })?.isFile() ? file : null;
      }
    }
    return null;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const ask = url.searchParams;
    const { range, 'if-range': ifRange } = request.headers;
    this.requests.push({
      method: request.method ?? '',
      path: url.pathname,
      range,
      ifRange: Array.isArray(ifRange) ? ifRange[0] : ifRange,
    });
    if (this.#isolated) {
      response.setHeader('cross-origin-opener-policy', 'same-origin');
      response.setHeader('cross-origin-embedder-policy', 'require-corp');
      response.setHeader('cross-origin-resource-policy', 'same-origin');
    }
    if (url.pathname === '/models') {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ models: [] }));
      return;
    }
    const file = this.#file(url.pathname);
    const status = Number(ask.get('status') ?? (file === null ? 404 : 200));
    if (status !== 200 || file === null) {
      response.writeHead(status, { 'content-type': 'text/html' }).end(`<h1>${status}</h1>`);
      return;
    }
    await this.#send(file, ask, request, response);
  }

  async #send(file: string, ask: URLSearchParams, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { size, mtimeMs } = statSync(file);
    const etag = `"${ask.get('etag') ?? `${size}-${Math.floor(mtimeMs)}`}"`;
    response.setHeader('etag', etag);
    response.setHeader('accept-ranges', 'bytes');
    response.setHeader('content-type', ask.get('type') ?? TYPES[extname(file)] ?? 'application/octet-stream');
    if (ask.has('digest')) {
      response.setHeader('repr-digest', `sha-256=:${await sha256(file)}:`);
    }
    let start = 0;
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
    const fresh = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
    if (range && fresh && !ask.has('norange')) {
      start = Number(range[1]);
      if (start >= size) {
        response.writeHead(416, { 'content-range': `bytes */${size}` }).end();
        return;
      }
      response.statusCode = 206;
      response.setHeader('content-range', `bytes ${start}-${size - 1}/${size}`);
    }
    if (!ask.has('nolength')) {
      response.setHeader('content-length', size - start);
    }
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    await this.#body(file, start, this.#end(file, size, ask), ask, response);
  }

  /** Where this response breaks off; the file's length where it does not. */
  #end(file: string, size: number, ask: URLSearchParams): number {
    if (ask.has('truncate')) {
      return Math.floor(size * Number(ask.get('truncate')));
    }
    if (ask.has('cut')) {
      const key = `${file}?${ask}`;
      const cuts = this.#cuts.get(key) ?? 0;
      if (cuts < Number(ask.get('times') ?? 1)) {
        this.#cuts.set(key, cuts + 1);
        return Math.floor(size * Number(ask.get('cut')));
      }
    }
    return size;
  }

  async #body(file: string, start: number, end: number, ask: URLSearchParams, response: ServerResponse): Promise<void> {
    const corrupt = ask.has('corrupt') ? Number(ask.get('corrupt')) : -1;
    const rate = Number(ask.get('rate') ?? 0);
    const { size } = statSync(file);
    let at = start;
    if (start < end) {
      const chunk = rate > 0 ? Math.max(1024, Math.floor(rate / 20)) : 256 << 10;
      for await (const piece of createReadStream(file, { start, end: end - 1, highWaterMark: chunk })) {
        const bytes = piece as Buffer;
        if (corrupt >= at && corrupt < at + bytes.length) {
          bytes[corrupt - at] = (bytes[corrupt - at] ?? 0) ^ 0xff;
        }
        at += bytes.length;
        if (!response.write(bytes)) {
          await new Promise<void>((resolve) => {
            const go = () => {
              response.off('drain', go);
              response.off('close', go);
              resolve();
            };
            response.on('drain', go);
            response.on('close', go);
          });
        }
        if (response.destroyed) {
          return;
        }
        if (rate > 0) {
          await sleep(50);
        }
      }
    }
    if (end < size) {
      // What was written shall be read before the connection breaks: browsers throw the rest away then.
      await sleep(300);
      response.destroy();
      return;
    }
    response.end();
  }
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(file)) {
    hash.update(piece as Buffer);
  }
  return hash.digest('base64');
}
