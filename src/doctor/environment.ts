import { createRequire } from "node:module";
import { join } from "node:path";
import { reportOn, type Finding } from "./check.ts";

const OLDEST_NODE = [20, 19] as const;

/** Whether this Node.js is new enough. */
export function checkNode(version: string = process.versions.node): Finding {
  const report = reportOn("node");
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) {
    return report.ok(`Node.js ${version}`);
  }
  return report.failed(
    `Node.js ${version} is older than ${OLDEST_NODE.join(".")}`,
    "Install a current Node.js (20.19 or newer).",
  );
}

/** The packages whose version decides whether graphs and clients work, and the versions that do. */
const PACKAGES: Record<string, { minor: number; major: number; required: boolean }> = {
  "@langchain/langgraph": { major: 1, minor: 7, required: true },
  "@langchain/core": { major: 1, minor: 4, required: true },
  "@langchain/langgraph-sdk": { major: 1, minor: 8, required: false },
};

/** Whether the project's LangChain packages are versions this server works with. */
export function checkPackages(cwd: string): Finding[] {
  return Object.entries(PACKAGES).map(([name, wanted]) => {
    const report = reportOn("packages");
    const range = `${wanted.major}.${wanted.minor} or newer, below ${wanted.major + 1}`;
    const install = `npm install ${name}@^${wanted.major}.${wanted.minor}`;
    const version = installedVersion(name, cwd);
    if (version === undefined) {
      return wanted.required
        ? report.failed(`${name} is not installed`, `Run: ${install}`)
        : report.skipped(`${name} is not installed; only clients need it`);
    }
    const [major = 0, minor = 0] = version.split(".").map(Number);
    if (major === wanted.major && minor >= wanted.minor) return report.ok(`${name} ${version}`);
    const message = `${name} is ${version}; it should be ${range}`;
    return wanted.required
      ? report.failed(message, `Run: ${install}`)
      : report.warning(message, `Run: ${install}`);
  });
}

function installedVersion(name: string, cwd: string): string | undefined {
  for (const base of [join(cwd, "package.json"), import.meta.url]) {
    try {
      const manifest: unknown = createRequire(base)(`${name}/package.json`);
      return String((manifest as { version: unknown }).version);
    } catch {
      // Looked for in the project first, then where this server finds its own.
    }
  }
  return undefined;
}
