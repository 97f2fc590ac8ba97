// Chromium, two servers (one of them with cross-origin isolation), and a page that has the package.

import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { TestServer } from './server.ts';

const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, '../../..');
export const reference = resolve(root, '../shared/reference');
export const oracle = join(root, 'tests/oracle/vectors');
export const demoModel = join(root, 'models/demo/twinfer-demo-q4_k_m.gguf');
export const screenshots = join(root, 'target/screenshots');
export const twinfer = process.env.TWINFER ?? join(root, 'target/debug/twinfer');

const roots = {
  '/models/': join(root, 'models/demo'),
  '/reference/': reference,
  '/oracle/': oracle,
  '/generated/': join(root, 'target/web-tests'),
  '/package/': join(root, 'web/dist'),
  '/pages/': join(root, 'web/tests/pages'),
  '/': join(root, 'www/dist'),
};

export interface World {
  browser: Browser;
  /** Cross-origin isolated. */
  isolated: TestServer;
  plain: TestServer;
  close: () => Promise<void>;
}

export async function open(): Promise<World> {
  mkdirSync(screenshots, { recursive: true });
  mkdirSync(roots['/generated/'], { recursive: true });
  const executablePath = process.env.TWINFER_CHROMIUM ?? '/usr/bin/chromium';
  const [browser, isolated, plain] = await Promise.all([
    chromium.launch({
      executablePath,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    }),
    TestServer.start(roots, true),
    TestServer.start(roots, false),
  ]);
  return {
    browser,
    isolated,
    plain,
    close: async () => {
      await browser.close();
      await Promise.all([isolated.stop(), plain.stop()]);
    },
  };
}

/** A page with the package as `window.twinfer`. What goes wrong in it unasked ends the test run. */
export async function harness(context: BrowserContext, server: TestServer): Promise<Page> {
  const page = await context.newPage();
  watch(page);
  await page.goto(`${server.origin}/pages/harness.html`);
  await page.waitForFunction(() => 'twinfer' in window);
  return page;
}

/** Errors that a page does not expect are shown. */
export function watch(page: Page): string[] {
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') {
      errors.push(message.text());
    }
  });
  return errors;
}
