import { loadConfig, type LoadConfigOptions } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { reportOn, type Finding } from "./check.ts";
import { checkNode, checkPackages } from "./environment.ts";
import { checkLangfuse } from "./langfuse.ts";
import { checkTargets } from "./targets.ts";
import { checkAuth, checkDatabase, checkGraphs, checkRoutes, reasonOf } from "./project.ts";

/**
 * Looks at everything a server of this project needs, one finding a line; `onFinding` gets each as it comes.
 * Never rejects: what goes wrong is a finding.
 */
export async function examine(
  options: LoadConfigOptions,
  onFinding: (finding: Finding) => void,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const note = (...found: Finding[]): void => {
    findings.push(...found);
    found.forEach(onFinding);
  };
  note(checkNode());
  const config = await readConfig(options, note);
  note(...checkPackages(config?.cwd ?? options.cwd));
  if (!config) return findings;
  const checks: [string, () => Promise<Finding | Finding[]>][] = [
    ["graphs", () => checkGraphs(config)],
    ["auth", () => checkAuth(config)],
    ["routes", () => checkRoutes(config)],
    ["database", () => checkDatabase(config)],
    ["langfuse", () => checkLangfuse(config)],
    ["targets", () => checkTargets(config)],
  ];
  for (const [name, check] of checks) {
    try {
      note(...[await check()].flat());
    } catch (error) {
      note(reportOn(name).failed(reasonOf(error), "This is a bug in aegra; please report it."));
    }
  }
  return findings;
}

async function readConfig(
  options: LoadConfigOptions,
  note: (...found: Finding[]) => void,
): Promise<Config | undefined> {
  const report = reportOn("config");
  try {
    const config = await loadConfig(options);
    note(report.ok(config.configPath ?? "no config file; defaults and environment"));
    for (const warning of config.warnings) {
      note(
        report.warning(
          warning,
          "Correct or remove it; see docs/configuration.md in node_modules/aegra.",
        ),
      );
    }
    return config;
  } catch (error) {
    note(report.failed(reasonOf(error), "Mend the config; everything else depends on it."));
    return undefined;
  }
}
