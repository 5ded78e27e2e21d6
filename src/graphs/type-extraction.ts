/**
 * A process of its own that reads a graph's types: `{ cwd, sourceFile, exportSymbol }` as its argument, what
 * it found as one message. The TypeScript compiler works for seconds without a pause, and takes 300 MB.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { constants, setPriority } from "node:os";
import { isAbsolute, join } from "node:path";
import { pathToFileURL } from "node:url";

/** What the process is told. */
export interface ExtractionRequest {
  /** The project's folder, whose extractor is used. */
  cwd: string;
  /** Absolute path of the graph's module, and its export. */
  sourceFile: string;
  exportSymbol: string;
}

interface ExtractorModule {
  getStaticGraphSchema(
    spec: { sourceFile: string; exportSymbol: string },
    options: { mainThread: boolean },
  ): Promise<unknown>;
}

/**
 * Notes the content of every file of the project from here on, by its hash. The compiler reads all it uses through
 * `readFileSync`, also what only exists for it: files with nothing but types, and each tsconfig.
 */
function recordReads(): Record<string, string> {
  const inputs: Record<string, string> = {};
  const read = fs.readFileSync;
  fs.readFileSync = ((path: fs.PathOrFileDescriptor, options?: BufferEncoding) => {
    const content = read(path, options);
    if (typeof path === "string" && isAbsolute(path) && !/[\\/]node_modules[\\/]/u.test(path)) {
      inputs[path] = createHash("sha256").update(content).digest("hex");
    }
    return content;
  }) as typeof read;
  syncBuiltinESMExports();
  return inputs;
}

async function run({ cwd, ...spec }: ExtractionRequest): Promise<object> {
  const path = createRequire(join(cwd, "_")).resolve("@langchain/langgraph-api/schema");
  const extractor = (await import(pathToFileURL(path).href)) as ExtractorModule;
  const inputs = recordReads();
  fs.readFileSync(spec.sourceFile);
  // Without a thread of its own: this whole process is there for it.
  return { schemas: await extractor.getStaticGraphSchema(spec, { mainThread: true }), inputs };
}

process.on("disconnect", () => process.exit());
setPriority(constants.priority.PRIORITY_LOW);
const answer = await run(JSON.parse(process.argv[2] ?? "{}") as ExtractionRequest).catch(
  (error: unknown) => ({ error: error instanceof Error ? error.message : String(error) }),
);
process.send?.(answer, () => process.exit());
