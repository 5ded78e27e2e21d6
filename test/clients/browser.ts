import { createServer, type Server as HttpServer } from "node:http";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import packagedChromium from "@sparticuz/chromium";
import { chromium, type Browser } from "playwright-core";
import { build } from "vite";

/** A browser and the pages it can open; whoever opened it closes it. */
export interface TestBrowser {
  browser: Browser;
  /** Where the page with one of the two hooks is. */
  address(page: "legacy" | "current", api: string): string;
  close(): Promise<void>;
}

const PAGE = fileURLToPath(new URL("page", import.meta.url));

/** Bundles the pages, serves them, and starts a Chromium that comes with an npm package. */
export async function openBrowser(): Promise<TestBrowser> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-pages-"));
  await bundle(folder);
  const http = await serveFolder(folder);
  const { port } = http.address() as AddressInfo;
  const browser = await chromium.launch({
    executablePath: await packagedChromium.executablePath(),
    // Its own list switches off the rules of the web that a page must pass here, CORS among them.
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
    headless: true,
  });
  return {
    browser,
    address: (page, api) => `http://127.0.0.1:${port}/?page=${page}&api=${encodeURIComponent(api)}`,
    async close() {
      await browser.close();
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function bundle(outDir: string): Promise<void> {
  await build({
    root: PAGE,
    configFile: false,
    logLevel: "error",
    oxc: { jsx: { runtime: "automatic", development: false } },
    define: { "process.env.NODE_ENV": JSON.stringify("production") },
    build: {
      outDir,
      emptyOutDir: true,
      minify: false,
      rollupOptions: {
        input: { legacy: join(PAGE, "legacy.tsx"), current: join(PAGE, "current.tsx") },
        output: { entryFileNames: "[name].js" },
      },
    },
  });
}

/** The page for every path without a file, as the thread in the address changes with time. */
function serveFolder(folder: string): Promise<HttpServer> {
  const http = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    if (url.pathname === "/") {
      const page = url.searchParams.get("page") === "legacy" ? "legacy" : "current";
      response.setHeader("Content-Type", "text/html");
      response.end(
        `<!doctype html><title>chat</title><div id="root"></div><script type="module" src="/${page}.js"></script>`,
      );
      return;
    }
    readFile(join(folder, url.pathname)).then(
      (file) => response.setHeader("Content-Type", "text/javascript").end(file),
      () => response.writeHead(404).end(),
    );
  });
  return new Promise((resolve) => {
    http.listen(0, "127.0.0.1", () => resolve(http));
  });
}
