// The package in Chromium: sources, streaming, abort, digests, errors, the cache, tabs, dying workers.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { BrowserContext, Page } from 'playwright-core';
import { demoModel, harness, open, reference, root, twinfer, type World } from './support/browser.ts';
import { writeSplit } from './support/split.ts';

interface Tried {
  ok: boolean;
  digest: string;
  tokens: number[];
  info: { name: string; threads: number; build: string; backend: string; memoryBytes: number; chat: boolean };
  phases: string[];
  isError: boolean;
  name: string;
  code: string;
  message: string;
  status?: number;
}

const MODEL = '/models/twinfer-demo-q4_k_m.gguf';
let world: World;
let context: BrowserContext;
let page: Page;

/** Every build, with one thread and with two. */
const builds = [['simd', 1], ['threads', 1], ['threads', 2], ['relaxed', 1], ['relaxed', 2]] as const;

const tryLoad = (source: unknown, options: object = {}, on: Page = page) =>
  on.evaluate(([source, options]) => (window as any).tryLoad(source, options), [source, options] as const) as Promise<Tried>;

/** The digest that the native engine gives. */
function native(model: string, tokens: number[]): string {
  const out = execFileSync(twinfer, ['eval', '-m', model, '--backend', 'scalar', '--tokens', tokens.join(','), '--json', '-q']);
  return (JSON.parse(out.toString()) as { sha256: string }).sha256;
}

before(async () => {
  world = await open();
});
after(async () => {
  await world.close();
});
beforeEach(async () => {
  await context?.close();
  context = await world.browser.newContext();
  page = await harness(context, world.isolated);
  world.isolated.take('');
});

describe('loading', () => {
  test('every build gives the native digest of the built-in model', async () => {
    for (const [build, threads] of builds) {
      const tried = await tryLoad(MODEL, { cache: false, build, threads });
      assert.ok(tried.ok, tried.message);
      assert.deepEqual([tried.info.build, tried.info.threads], [build, threads]);
      assert.equal(tried.digest, native(demoModel, tried.tokens), `build ${build}, ${threads} threads`);
    }
    const tried = await tryLoad(MODEL, { cache: false, build: 'fastest' });
    assert.deepEqual([tried.ok, tried.code], [false, 'unsupported']);
  });

  test('a URL: digest equal to the native scalar backend', async () => {
    const tried = await tryLoad(MODEL, { cache: false });
    assert.ok(tried.ok, tried.message);
    assert.equal(tried.digest, native(demoModel, tried.tokens));
    assert.ok(tried.phases.includes('download') && tried.phases.at(-1) === 'ready', String(tried.phases));
  });

  test('one thread and several give the same digest', async () => {
    const one = await tryLoad(MODEL, { cache: false, threads: 1 });
    const two = await tryLoad(MODEL, { cache: false, threads: 2 });
    assert.ok(one.ok && two.ok, one.message ?? two.message);
    assert.deepEqual([one.info.build, one.info.threads], ['simd', 1]);
    assert.deepEqual([two.info.build, two.info.threads], ['relaxed', 2]);
    assert.equal(one.digest, two.digest);
  });

  test('a File, a stream, a Response give the same', async () => {
    const digests = await page.evaluate(async (url) => {
      const { tryLoad } = window as any;
      const bytes = await (await fetch(url)).blob();
      const all: Tried[] = [
        await tryLoad(new File([bytes], 'model.gguf')),
        await tryLoad(bytes.stream()),
        await tryLoad(await fetch(url)),
      ];
      return all.map((tried) => (tried.ok ? tried.digest : tried.message));
    }, MODEL);
    assert.equal(new Set(digests).size, 1, String(digests));
    assert.match(digests[0] ?? '', /^[0-9a-f]{64}$/);
  });

  test('a split model, from URLs and from files, gives the digest of the whole one', async () => {
    const whole = await tryLoad(MODEL, { cache: false });
    const parts = writeSplit(demoModel, join(root, 'target/web-tests/split'), 3).map((path) => `/generated/${basename(path)}`);
    const split = await tryLoad(parts, { cache: false });
    assert.ok(split.ok, split.message);
    assert.equal(split.digest, whole.digest);
    const files = await page.evaluate(async (urls) => {
      const blobs = await Promise.all(urls.map(async (url) => (await fetch(url)).blob()));
      return (window as any).tryLoad(blobs) as Promise<Tried>;
    }, parts);
    assert.equal(files.digest, whole.digest, files.message);
    const missing = await tryLoad(parts.slice(0, 2), { cache: false });
    assert.equal(missing.ok, false);
    assert.match(missing.message, /part|split|3/);
    const swapped = await tryLoad([parts[0], parts[2], parts[1]], { cache: false });
    assert.equal(swapped.ok, false, 'parts in the wrong order are refused');
  });

  test('without isolation: one thread, the same digest', async () => {
    const plain = await harness(context, world.plain);
    const [here, there] = [await tryLoad(MODEL, { threads: 4 }, plain), await tryLoad(MODEL)];
    assert.ok(here.ok, here.message);
    assert.deepEqual([here.info.build, here.info.threads], ['simd', 1]);
    assert.equal(here.digest, there.digest);
  });

  test('the header is there long before the file', async () => {
    const seen = await page.evaluate(async (url) => {
      const seen: [string, number, number][] = [];
      const controller = new AbortController();
      const load = (window as any).twinfer.Model.load(`${url}?rate=1500000`, {
        cache: false,
        signal: controller.signal,
        onProgress: ({ header, plan, loaded, total }: any) => {
          if (header && plan) {
            seen.push([header.architecture, loaded, total]);
            controller.abort();
          }
        },
      });
      await load.catch(() => undefined);
      return seen;
    }, MODEL);
    const [architecture, loaded, total] = seen[0] ?? ['', 1, 1];
    assert.equal(architecture, 'llama');
    assert.ok(loaded < total / 2, `${loaded} of ${total}`);
  });

  test('a model that does not fit is refused before its data is fetched', async () => {
    const tried = await tryLoad(`${MODEL}?rate=500000`, { cache: false, contextLength: 10_000_000 });
    assert.equal(tried.code, 'memory');
    assert.match(tried.message, /MiB/);
  });

  test('an aborted load ends at once', async () => {
    const ms = await page.evaluate(async (url) => {
      const controller = new AbortController();
      const load = (window as any).twinfer.Model.load(`${url}?rate=300000`, { cache: false, signal: controller.signal });
      await new Promise((resolve) => setTimeout(resolve, 500));
      const begun = performance.now();
      controller.abort();
      const name = await load.then(() => 'loaded', (error: Error) => error.name);
      return [name, performance.now() - begun] as const;
    }, MODEL);
    assert.equal(ms[0], 'AbortError');
    assert.ok(ms[1] < 100, `${ms[1]} ms`);
  });
});

describe('generating', () => {
  const named = resolve(root, '../shared/cases/template-tool_use-variant.gguf');
  test('of the named chat templates, tools choose theirs, or an option', { skip: existsSync(named) ? false : `${named} is not there` }, async () => {
    const out = await page.evaluate(async (bytes) => {
      const { Model } = (window as any).twinfer;
      const model = await Model.load(new File([Uint8Array.from(bytes)], 'named.gguf'), { threads: 1 });
      const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];
      const tokens = async (options: object) => {
        const answer = model.generate([{ role: 'user', content: 'a' }], { temp: 0, maxTokens: 1, ...options });
        return (await answer.result).promptTokens as number;
      };
      const code = (options: object) => tokens(options).then(String, (error: { code: string }) => error.code);
      const counts = [
        await tokens({}),
        await tokens({ tools: [] }),
        await tokens({ tools }),
        await tokens({ tools, chatTemplateName: 'tool_use' }),
        await tokens({ tools, chatTemplateName: 'default' }),
      ];
      const unknown = await code({ chatTemplateName: 'rag' });
      const names = model.info.chatTemplates;
      model.free();
      return { counts, unknown, names };
    }, [...readFileSync(named)]);
    // The variant writes `TU:` where the plain one writes `D:`, and `[f]` for the tool; every character is a token.
    const [plain] = out.counts;
    assert.deepEqual(out.counts.map((count) => count - plain), [0, 0, 4, 4, 0]);
    assert.equal(out.unknown, 'template');
    assert.deepEqual(out.names, ['default', 'tool_use']);
  });

  test('tokens stream with text; greedy is repeatable; tokens and text agree', async () => {
    const out = await page.evaluate(async (url) => {
      const { Model } = (window as any).twinfer;
      const model = await Model.load(url, { cache: false });
      const run = async () => {
        const run = model.generate('Once upon a time', { temp: 0, maxTokens: 24 });
        const pieces: { token: number; text: string }[] = [];
        for await (const piece of run) {
          pieces.push(piece);
        }
        return { pieces, result: await run.result };
      };
      const [first, second] = [await run(), await run()];
      const text = first.pieces.map((piece) => piece.text).join('');
      const again = await model.detokenize(first.pieces.map((piece) => piece.token));
      const chat = model.info.chat
        ? await model.generate([{ role: 'user', content: 'Hello!' }], { temp: 0, maxTokens: 8 }).text()
        : 'x';
      model.free();
      return { first, second, text, again, chat };
    }, MODEL);
    assert.equal(out.first.result.tokens, 24);
    assert.equal(out.first.result.reason, 'limit');
    assert.deepEqual(out.first.pieces, out.second.pieces);
    assert.equal(out.second.result.cachedTokens, out.second.result.promptTokens - 1);
    assert.equal(out.text.trim(), out.again.trim());
    assert.ok(out.chat.length > 0);
  });

  test('an abort ends the answer at once, and the model goes on', async () => {
    const [name, ms, text] = await page.evaluate(async (url) => {
      const { Model } = (window as any).twinfer;
      const model = await Model.load(url, { cache: false });
      const controller = new AbortController();
      let begun = 0;
      let name = 'ended';
      try {
        let n = 0;
        for await (const _ of model.generate('Once', { temp: 0, ignoreEos: true, signal: controller.signal })) {
          n += 1;
          if (n === 5) {
            begun = performance.now();
            controller.abort();
          }
        }
      } catch (error) {
        name = (error as Error).name;
      }
      const ms = performance.now() - begun;
      const text = await model.generate('Once upon', { temp: 0, maxTokens: 4 }).text();
      model.free();
      return [name, ms, text] as const;
    }, MODEL);
    assert.equal(name, 'AbortError');
    assert.ok(ms < 50, `${ms} ms`);
    assert.ok(text.length > 0);
  });

  test('stop texts, wrong options, use after free', async () => {
    const out = await page.evaluate(async (url) => {
      const { Model } = (window as any).twinfer;
      const model = await Model.load(url, { cache: false });
      const whole = await model.generate('Once upon a time', { temp: 0, maxTokens: 24 }).text();
      const word = whole.trim().split(' ')[3];
      const run = model.generate('Once upon a time', { temp: 0, maxTokens: 24, stop: [word] });
      const stopped = await run.text();
      const { reason } = await run.result;
      const code = (promise: Promise<unknown>) => promise.then(() => 'fine', (error) => error.code);
      const wrong = await code(model.generate('x', { temp: 'hot' }).text());
      const unknown = await code(model.generate('x', { temprature: 1 }).text());
      const empty = await code(model.digest([]));
      const outside = await code(model.digest([1e9]));
      const waiting = code(model.generate('x', { ignoreEos: true }).text());
      model.free();
      return { whole, word, stopped, reason, wrong, unknown, empty, outside, pending: await waiting, freed: await code(model.tokenize('x')) };
    }, MODEL);
    assert.equal(out.reason, 'stop');
    assert.equal(out.stopped, out.whole.slice(0, out.whole.indexOf(out.word)));
    assert.deepEqual(
      [out.wrong, out.unknown, out.empty, out.outside, out.pending, out.freed],
      ['input', 'input', 'input', 'input', 'freed', 'freed'],
    );
  });

  test('the page stays responsive while the model answers', async () => {
    const longest = await page.evaluate(async (url) => {
      const { Model } = (window as any).twinfer;
      const model = await Model.load(url, { cache: false, threads: 1 });
      const tasks: number[] = [];
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => tasks.push(entry.duration))).observe({ type: 'longtask' });
      await model.generate('Once upon a time there was '.repeat(20), { temp: 0, maxTokens: 20 }).text();
      await new Promise((resolve) => setTimeout(resolve, 100));
      model.free();
      return Math.max(0, ...tasks);
    }, MODEL);
    // Chromium reports tasks of the page's thread of 50 ms and more.
    assert.equal(longest, 0, `a task of ${longest} ms`);
  });
});

describe('faults', () => {
  const failing = async (query: string, code: string, pattern: RegExp) => {
    const tried = await tryLoad(`${MODEL}?${query}`);
    assert.equal(tried.ok, false);
    assert.ok(tried.isError);
    assert.equal(tried.code, code, tried.message);
    assert.match(tried.message, pattern);
    return tried;
  };

  test('404', async () => {
    const tried = await failing('status=404', 'http', /404/);
    assert.equal(tried.status, 404);
    assert.equal((await tryLoad('/models/none.gguf')).code, 'http');
  });

  test('a page in place of a model', async () => {
    const tried = await tryLoad('/pages/harness.html');
    assert.equal(tried.code, 'content-type', tried.message);
    assert.match(tried.message, /text\/html/);
    // The type alone is no fault: some servers send it for everything.
    assert.ok((await tryLoad(`${MODEL}?type=text/plain`)).ok);
  });

  test('a body shorter than its Content-Length, every time', async () => {
    await failing('truncate=0.5', 'network', /byte/);
  });

  test('a body without a length that ends early', async () => {
    const cut = join(root, 'target/web-tests/cut.gguf');
    const bytes = readFileSync(demoModel);
    writeFileSync(cut, bytes.subarray(0, Math.floor(bytes.length / 2)));
    const tried = await tryLoad('/generated/cut.gguf?nolength=1');
    assert.equal(tried.code, 'truncated', tried.message);
  });

  test('corrupted bytes: seen by the digest, and nothing is kept', async () => {
    await failing('digest=1&corrupt=2000000', 'digest', /SHA-256/);
    assert.deepEqual(await page.evaluate(() => (window as any).twinfer.cache.list()), []);
  });

  test('a corrupted header', async () => {
    await failing('corrupt=0', 'format', /GGUF/);
    assert.deepEqual(await page.evaluate(() => (window as any).twinfer.cache.list()), []);
  });

  test('malformed files are refused with an error that has a code', { skip: existsSync(join(reference, 'gguf-bad')) ? false : 'the reference vectors are not there' }, async () => {
    const index = JSON.parse(readFileSync(join(reference, 'gguf-bad/index.json'), 'utf8')) as {
      cases: { file: string; expect: string }[];
    };
    const wrong: string[] = [];
    for (const { file, expect } of index.cases) {
      const tried = await tryLoad(`/reference/gguf-bad/${file}`, { cache: false, threads: 1 });
      const fits = expect === 'accept' ? tried.ok : expect === 'reject' ? !tried.ok : true;
      // A crash is never an answer; running out of a page's memory by a check is.
      if (!fits || tried.code === 'crashed') {
        wrong.push(`${file}: expected ${expect}, got ${tried.ok ? 'a model' : `${tried.code}: ${tried.message}`}`);
      }
    }
    assert.deepEqual(wrong, []);
  });

  test('a browser that is slow to give a lock is no end of a worker', async () => {
    await context.route('**/worker.js', async (route) => {
      const script = await (await route.fetch()).text();
      const slow =
        'const request = navigator.locks.request.bind(navigator.locks);' +
        'navigator.locks.request = async (...all) => { await new Promise((then) => setTimeout(then, 500)); return request(...all); };';
      await route.fulfill({ contentType: 'text/javascript', body: `${slow}\n${script}`, headers: { 'cross-origin-embedder-policy': 'require-corp' } });
    });
    const tried = await tryLoad(MODEL, { cache: false });
    assert.ok(tried.ok, tried.message);
  });

  test('a worker that ends amid an answer rejects it, and the model can be loaded again', async () => {
    await page.evaluate(async (url) => {
      const w = window as any;
      w.model = await w.twinfer.Model.load(url, { cache: false });
      w.pieces = 0;
      w.outcome = (async () => {
        try {
          for await (const _ of w.model.generate('Once', { temp: 0, ignoreEos: true })) {
            w.pieces += 1;
          }
          return 'ended';
        } catch (error) {
          return (error as { code: string }).code;
        }
      })();
    }, MODEL);
    await page.waitForFunction(() => (window as any).pieces > 2);
    const worker = page.workers().find((worker) => worker.url().includes('/package/worker.js'));
    assert.ok(worker);
    await worker.evaluate(() => self.close()).catch(() => undefined);
    assert.equal(await page.evaluate(() => (window as any).outcome), 'crashed');
    const text = await page.evaluate(async () => {
      const { model } = window as any;
      await model.reload();
      return model.generate('Once', { temp: 0, maxTokens: 4 }).text();
    });
    assert.ok(text.length > 0);
  });
});

describe('connections and the cache', () => {
  test('a connection that breaks at 30 % goes on by Range', async () => {
    const tried = await tryLoad(`${MODEL}?cut=0.3&id=range&rate=3000000`);
    assert.ok(tried.ok, tried.message);
    assert.ok(tried.phases.includes('retry'));
    const gets = world.isolated.take(MODEL).filter((request) => request.method === 'GET');
    assert.equal(gets.length, 2);
    const size = readFileSync(demoModel).length;
    assert.equal(gets[1]?.range, `bytes=${Math.floor(size * 0.3)}-`);
    assert.ok(gets[1]?.ifRange);
  });

  test('the second load reads the cache', async () => {
    const first = await tryLoad(`${MODEL}?digest=1`);
    world.isolated.take(MODEL);
    const second = await tryLoad(`${MODEL}?digest=1`);
    assert.ok(first.ok && second.ok, first.message ?? second.message);
    assert.equal(first.digest, second.digest);
    assert.ok(second.phases.includes('cache') && !second.phases.includes('download'), String(second.phases));
    assert.deepEqual(
      world.isolated.take(MODEL).map((request) => request.method),
      ['HEAD'],
    );
  });

  test('a connection that stays broken leaves a part; the next load resumes it', async () => {
    const url = `${MODEL}?cut=0.3&times=4&id=resume&norange=1&rate=3000000`;
    const first = await tryLoad(url);
    assert.equal(first.code, 'network', first.message);
    const [kept] = (await page.evaluate(() => (window as any).twinfer.cache.list())) as { complete: boolean; bytes: number; length: number }[];
    assert.equal(kept?.complete, false);
    assert.ok(kept && kept.bytes > kept.length * 0.29 && kept.bytes < kept.length * 0.31, JSON.stringify(kept));
    world.isolated.take(MODEL);
    const second = await tryLoad(url);
    assert.ok(second.ok, second.message);
    assert.equal(world.isolated.take(MODEL).find((request) => request.method === 'GET')?.range, `bytes=${kept?.bytes}-`);
    const [whole] = (await page.evaluate(() => (window as any).twinfer.cache.list())) as { complete: boolean; name: string }[];
    assert.equal(whole?.complete, true);
  });

  test('a tab that closes leaves a part that another resumes', async () => {
    const url = `${MODEL}?rate=1500000`;
    const other = await harness(context, world.isolated);
    await other.evaluate((url) => void (window as any).tryLoad(url), url);
    await other.waitForFunction(() => (window as any).lastProgress?.loaded > 1e6);
    await other.close();
    world.isolated.take(MODEL);
    const tried = await tryLoad(url);
    assert.ok(tried.ok, tried.message);
    const get = world.isolated.take(MODEL).find((request) => request.method === 'GET');
    assert.match(get?.range ?? '', /^bytes=[1-9]\d{5,}-$/);
  });

  test('a file that changed is loaded anew', async () => {
    const roots = await page.evaluate(async (url) => {
      const { tryLoad, twinfer } = window as any;
      // The same address with another ETag from the second request on.
      const first = await tryLoad(url);
      const [entry] = await twinfer.cache.list();
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('twinfer-models');
      for await (const [name, handle] of (folder as any).entries()) {
        if (name.endsWith('.json')) {
          const text = await (await handle.getFile()).text();
          const writable = await handle.createWritable();
          await writable.write(text.replace(/"etag":"[^,]*"/, '"etag":"\\"another\\""'));
          await writable.close();
        }
      }
      const second = await tryLoad(url);
      return { first, entry, second };
    }, MODEL);
    assert.ok(roots.first.ok && roots.second.ok);
    assert.ok(roots.second.phases.includes('download'), String(roots.second.phases));
  });

  test('two tabs load the same address: one downloads, both answer', async () => {
    const other = await harness(context, world.isolated);
    const url = `${MODEL}?rate=4000000`;
    const [a, b] = await Promise.all([tryLoad(url), tryLoad(url, {}, other)]);
    assert.ok(a.ok && b.ok, a.message ?? b.message);
    assert.equal(a.digest, b.digest);
    const gets = world.isolated.take(MODEL).filter((request) => request.method === 'GET');
    assert.equal(gets.length, 1);
  });

  test('list and delete', async () => {
    await tryLoad(MODEL);
    const out = await page.evaluate(async () => {
      const { cache } = (window as any).twinfer;
      const before = await cache.list();
      const { used, quota } = await cache.usage();
      await cache.delete(before[0].url);
      return { before, after: await cache.list(), used, quota };
    });
    assert.equal(out.before.length, 1);
    assert.ok(out.before[0].complete && out.used > 0 && out.quota > out.used);
    assert.deepEqual(out.after, []);
  });

  test('without the browser’s storage it loads uncached and says so', async () => {
    const tried = await page.evaluate(async (url) => {
      // What browsers do in some private modes.
      const source = 'StorageManager.prototype.getDirectory = () => Promise.reject(new DOMException("no", "SecurityError"));';
      const script = (text: string) => URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
      const original = window.Worker;
      window.Worker = class extends original {
        constructor(url: URL | string, options?: WorkerOptions) {
          super(script(`import ${JSON.stringify(script(source))}; import ${JSON.stringify(String(url))};`), options);
        }
      };
      const tried = await (window as any).tryLoad(new URL(url, location.href).href, { threads: 1 });
      return { ...tried, uncached: (window as any).lastProgress.uncached };
    }, MODEL);
    assert.ok(tried.ok, tried.message);
    assert.match(tried.uncached, /storage/);
  });
});
