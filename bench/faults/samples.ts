import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";

/** What a process holds at one moment. */
export interface Sample {
  memoryMb: number;
  files: number;
  spoolKb: number;
}

/** Looks at a process of this machine and its spool. Linux only. */
export async function sample(pid: number, spool: string): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const handles = await readdir(`/proc/${pid}/fd`);
  const names = await readdir(spool, { recursive: true }).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(spool, name)).then(
        (found) => (found.isFile() ? found.size : 0),
        () => 0,
      ),
    ),
  );
  return {
    memoryMb: Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1] ?? 0) / 1_024,
    files: handles.length,
    spoolKb: sizes.reduce((total, size) => total + size, 0) / 1_024,
  };
}

/** The medians of each quarter of the samples, as one line for a person. */
export function describeSamples(samples: readonly Sample[]): string {
  const quarter = Math.max(1, Math.floor(samples.length / 4));
  const medians = (of: (one: Sample) => number): string =>
    [0, 1, 2, 3]
      .map((index) => samples.slice(index * quarter, (index + 1) * quarter).map(of))
      .map((values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0)
      .map((value) => value.toFixed(0))
      .join(", ");
  const most = Math.max(...samples.map(({ spoolKb }) => spoolKb));
  return `medians of the four quarters: memory ${medians((one) => one.memoryMb)} MB; open files ${medians((one) => one.files)}; spool ${medians((one) => one.spoolKb)} kB, at most ${most.toFixed(0)} kB`;
}
