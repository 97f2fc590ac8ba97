// Chromium's part of the matrix that the native tests print (tests/tests/matrix): every build of the package x number of threads x split of
// the prompt x type of the cache x model. Each cell is the digest of all logits and equals the native scalar backend's; where one does
// not, the first operation and element that differ are named.
//
// The built-in model takes every combination. The models of tests/oracle/vectors (every architecture) take every split with every number
// of threads, and each type of the cache with some of them. Those of the reference data (every tensor type) take each build with one and
// two threads.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { demoModel, harness, open, oracle, reference, twinfer, type World } from './support/browser.ts';

type Build = 'simd' | 'threads' | 'relaxed';
type CacheName = 'f16' | 'f32' | 'q8_0';
/** Types of keys and of values. */
type Caches = readonly [CacheName, CacheName];

interface Subject {
  name: string;
  path: string;
  url: string;
  tokens: number[];
}

/** One loaded model; its splits are cells. */
interface Setting {
  build: Build;
  threads: number;
  caches: Caches;
}

const SPLITS = [1, 7, 64, 512] as const;
const THREADS = [1, 2, 3, 4] as const;
const BUILDS: readonly Build[] = ['simd', 'threads', 'relaxed'];
const UNIFORM: readonly Caches[] = [['f16', 'f16'], ['f32', 'f32'], ['q8_0', 'q8_0']];
const MIXED: readonly Caches[] = [['q8_0', 'f16'], ['f16', 'q8_0']];

/** What the native program prints about the tokens: by default computed in the plainest way. */
function native(subject: Subject, [k, v]: Caches, rest: string[] = []): string {
  const plain = ['--backend', 'scalar', '--weights', 'mapped', '-t', '1', '-b', '1'];
  return execFileSync(
    twinfer,
    ['eval', '-m', subject.path, '--tokens', subject.tokens.join(','), '--cache-type-k', k, '--cache-type-v', v, '-q', ...plain, ...rest],
    { maxBuffer: 1 << 28, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
  );
}

/** Whether its heads can be cached as int8: a multiple of 32 numbers. */
function takesInt8(subject: Subject): boolean {
  try {
    native(subject, ['q8_0', 'q8_0'], ['--json']);
    return true;
  } catch (error) {
    assert.match(String((error as { stderr?: string }).stderr), /blocks of 32/);
    return false;
  }
}

/** The native matrix's tokens of a model. */
function subject(path: string, url: string, nTokens: number): Subject {
  const vocabulary = JSON.parse(execFileSync(twinfer, ['eval', '-m', path, '--tokens', '0', '--json', '-q'], { encoding: 'utf8' })).n_vocab as number;
  const tokens = Array.from({ length: nTokens }, (_, i) => (i * 37 + Math.floor(i / 5) + 11) % vocabulary);
  return { name: url.split('/').at(-1)?.replace('.gguf', '') ?? url, path, url, tokens };
}

/** The digest for each of the splits. */
function inChromium(page: Page, subject: Subject, setting: Setting, splits: readonly number[]): Promise<string[]> {
  return page.evaluate(
    async ([url, tokens, { build, threads, caches }, splits]) => {
      const options = { cache: false, build, threads, cacheTypeK: caches[0], cacheTypeV: caches[1] };
      const model = await (window as any).twinfer.Model.load(url, options);
      try {
        const digests: string[] = [];
        for (const batchSize of splits) {
          digests.push(await model.digest(tokens, { batchSize }));
        }
        return digests;
      } finally {
        model.free();
      }
    },
    [subject.url, subject.tokens, setting, splits] as const,
  );
}

/** The text of the trace, or of the values at a place. */
function traced(page: Page, subject: Subject, setting: Setting, batchSize: number, place: string | null): Promise<string> {
  return page.evaluate(
    async ([url, tokens, { build, threads, caches }, batchSize, place]) => {
      const options = { cache: false, build, threads, cacheTypeK: caches[0], cacheTypeV: caches[1] };
      const model = await (window as any).twinfer.Model.load(url, options);
      try {
        const text = place === null ? model.trace(tokens, { batchSize }) : model.traceValues(tokens, place, { batchSize });
        return (await text) as string;
      } finally {
        model.free();
      }
    },
    [subject.url, subject.tokens, setting, batchSize, place] as const,
  );
}

/** Where a cell begins to differ from the plainest way; `null` where every operation is equal. */
async function locate(page: Page, subject: Subject, setting: Setting, batchSize: number, caches = setting.caches): Promise<string | null> {
  const lines = (text: string) => text.split('\n');
  const [here, there] = [
    lines(await traced(page, subject, setting, batchSize, null)),
    lines(native(subject, caches, ['--trace-ops', '-'])),
  ];
  // The first line says what was traced.
  const at = here.findIndex((line, i) => i > 0 && line !== there[i]);
  if (at < 0 && here.length === there.length) {
    return null;
  }
  const [position, layer, op] = (here[at] ?? '').split(' ');
  const place = `${position}:${layer}:${op}`;
  const [ours, theirs] = [
    lines(await traced(page, subject, setting, batchSize, place)),
    lines(native(subject, caches, ['--trace-values', place])),
  ];
  const element = ours.findIndex((line, i) => line !== theirs[i]);
  return `position ${position}, layer ${layer}, operation ${op}, element ${ours[element]} and ${theirs[element]}`;
}

const inWords = ({ build, threads, caches }: Setting, split: number) =>
  `build ${build}, ${threads} threads, ${split} tokens a pass, cache ${caches.join('/')}`;

/** Settings in the order of the table: a row per build and cache. */
function settings(caches: (threads: number) => readonly Caches[]): Setting[] {
  return BUILDS.flatMap((build) =>
    THREADS.filter((threads) => build !== 'simd' || threads === 1).flatMap((threads) =>
      caches(threads).map((caches) => ({ build, threads, caches })),
    ),
  );
}

describe('the matrix in Chromium', () => {
  let world: World;
  let page: Page;
  before(async () => {
    world = await open();
    page = await harness(await world.browser.newContext(), world.isolated);
    page.setDefaultTimeout(60_000);
  });
  after(async () => {
    await world.close();
  });

  /** Computes and prints the cells of one model; what differs, in words. */
  async function compare(subject: Subject, chosen: Setting[]): Promise<{ cells: number; wrong: string[] }> {
    const wants = new Map<string, string>();
    const rows = new Map<string, Map<string, string>>();
    const wrong: string[] = [];
    let cells = 0;
    for (const setting of chosen) {
      const cache = setting.caches.join('/');
      const want = wants.get(cache) ?? (JSON.parse(native(subject, setting.caches, ['--json'])) as { sha256: string }).sha256;
      if (!wants.has(cache)) {
        wants.set(cache, want);
        rows.set(`scalar ${cache}`, new Map([['1x1', want]]));
      }
      const row = rows.get(`${setting.build} ${cache}`) ?? new Map<string, string>();
      rows.set(`${setting.build} ${cache}`, row);
      const digests = await inChromium(page, subject, setting, SPLITS);
      for (const [i, digest] of digests.entries()) {
        const split = SPLITS[i] ?? 0;
        row.set(`${setting.threads}x${split}`, digest);
        cells += 1;
        if (digest !== want) {
          wrong.push(`${subject.name}: ${inWords(setting, split)}: first at ${await locate(page, subject, setting, split)}`);
        }
      }
    }
    console.log(subject.name);
    for (const [name, row] of rows) {
      const shown = columns.map((column) => (row.get(column)?.slice(0, 6) ?? '').padStart(8));
      console.log(`  ${name.padEnd(17)} ${shown.join(' ')}`.trimEnd());
    }
    return { cells, wrong };
  }

  const columns = THREADS.flatMap((threads) => SPLITS.map((split) => `${threads}x${split}`));
  const heads = `${'threads x split'.padEnd(19)} ${columns.map((column) => column.padStart(8)).join(' ')}`;

  test('every cell of the built-in model and of each architecture is equal', { timeout: 600_000 }, async () => {
    const files = readdirSync(oracle).filter((name) => name.endsWith('.gguf')).sort();
    assert.ok(files.length > 0, 'these models are a part of the project');
    const wrong: string[] = [];
    let cells = 0;
    console.log(heads);
    for (const file of files) {
      const model = subject(join(oracle, file), `/oracle/${file}`, 75);
      const int8 = takesInt8(model);
      const uniform = UNIFORM.slice(0, int8 ? 3 : 2);
      // Each number of threads with one type; the mixed ones with two threads.
      const chosen = settings((threads) => [
        uniform[(threads - 1) % uniform.length] ?? ['f16', 'f16'],
        ...(int8 && threads === 2 ? MIXED : []),
      ]);
      const found = await compare(model, chosen);
      cells += found.cells;
      wrong.push(...found.wrong);
    }
    const found = await compare(subject(demoModel, '/models/twinfer-demo-q4_k_m.gguf', 140), settings(() => [...UNIFORM, ...MIXED]));
    cells += found.cells;
    wrong.push(...found.wrong);
    console.log(`matrix, Chromium: ${cells} cells of ${files.length + 1} models, ${wrong.length} of them differ`);
    assert.deepEqual(wrong, []);
  });

  test('the operation that differs is named', async () => {
    const model = subject(demoModel, '/models/twinfer-demo-q4_k_m.gguf', 70);
    for (const build of BUILDS) {
      const setting: Setting = { build, threads: build === 'simd' ? 1 : 2, caches: ['f16', 'f16'] };
      assert.equal(await locate(page, model, setting, 7), null, build);
    }
    // Values that were rounded otherwise: seen first where they are used, in the first layer.
    const other: Setting = { build: 'relaxed', threads: 2, caches: ['f16', 'q8_0'] };
    const place = (await locate(page, model, other, 7, ['f16', 'f16'])) ?? 'nowhere';
    assert.match(place, /^position 0, layer 0, operation attention, element \d+ [0-9a-f]{8} \S+ and \d+ [0-9a-f]{8} \S+$/);
  });

  const absent = existsSync(join(reference, 'models/synthetic')) ? false : 'the reference vectors are not there';
  test('every build, with one thread and with two, on each tensor type', { skip: absent, timeout: 600_000 }, async () => {
    const wrong: string[] = [];
    const chosen = settings((threads) => (threads <= 2 ? UNIFORM.slice(0, 1) : []));
    console.log('digest of all logits'.padEnd(36), ['native', ...chosen.map((s) => `${s.build} ${s.threads}`)].map((name) => name.padEnd(9)).join(' '));
    for (const folder of ['synthetic', 'wide']) {
      for (const name of readdirSync(join(reference, 'models', folder)).filter((name) => name.endsWith('.gguf'))) {
        const model = subject(join(reference, 'models', folder, name), `/reference/models/${folder}/${name}`, 75);
        const want = (JSON.parse(native(model, ['f16', 'f16'], ['--json'])) as { sha256: string }).sha256;
        const row = [want];
        for (const setting of chosen) {
          const [digest = ''] = await inChromium(page, model, setting, [512]);
          row.push(digest);
          if (digest !== want) {
            wrong.push(`${name}: ${inWords(setting, 512)}: first at ${await locate(page, model, setting, 512)}`);
          }
        }
        console.log(name.padEnd(36), row.map((digest) => digest.slice(0, 6).padEnd(9)).join(' '));
      }
    }
    assert.deepEqual(wrong, []);
  });
});
