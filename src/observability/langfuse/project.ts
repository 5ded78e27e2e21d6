import type { LangfuseSettings } from "./config.ts";
import { readAnswer } from "../delivery/answer.ts";
import { withDeadline } from "../delivery/deadline.ts";
import { reasonOf, toLine } from "../delivery/reason.ts";
import { createWithhold, type Withhold } from "../delivery/withhold.ts";

/** An organisation's keys see all of its projects. */
const MOST_BYTES = 1_024 * 1_024;

/** What Langfuse says about the keys. */
export type ProjectCheck =
  | { kind: "ok"; projectId: string | undefined; projectName: string | undefined }
  | { kind: "refused"; message: string }
  | { kind: "unreachable"; message: string };

/** The `Authorization` of a project's keys. */
export function basicAuth(settings: LangfuseSettings): string {
  return `Basic ${Buffer.from(`${settings.publicKey}:${settings.secretKey}`).toString("base64")}`;
}

/** Asks `GET /api/public/projects` which project the keys belong to. Never rejects. */
export async function checkProject(
  settings: LangfuseSettings,
  signal: AbortSignal,
): Promise<ProjectCheck> {
  const headers = { ...settings.headers, authorization: basicAuth(settings) };
  const withhold = createWithhold(headers);
  try {
    const limit = { timeoutMs: settings.timeoutMs, stopped: signal };
    const { response, text } = await withDeadline(limit, async (signal) => {
      const response = await fetch(`${settings.host}/api/public/projects`, {
        headers: { ...headers, accept: "application/json" },
        redirect: "manual",
        signal,
      });
      return { response, text: (await readAnswer(response, MOST_BYTES)).toString() };
    });
    if (response.status === 401 || response.status === 403) {
      return {
        kind: "refused",
        message: `Langfuse at ${settings.host} refused the keys (HTTP ${response.status}): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, and that LANGFUSE_HOST is the server they were made on.`,
      };
    }
    if (!response.ok) return unreachable(settings, `HTTP ${response.status}`);
    return (
      toProject(text, withhold) ??
      unreachable(settings, "the answer is not Langfuse's; is this the right address?")
    );
  } catch (error) {
    return unreachable(settings, reasonOf(error, settings.timeoutMs, withhold));
  }
}

function unreachable(settings: LangfuseSettings, reason: string): ProjectCheck {
  return {
    kind: "unreachable",
    message: `Langfuse at ${settings.host} cannot be reached (${reason}): check LANGFUSE_HOST and the network. Traces wait in the meantime.`,
  };
}

function toProject(text: string, withhold: Withhold): ProjectCheck | undefined {
  try {
    const body = JSON.parse(text) as { data?: Array<{ id?: unknown; name?: unknown }> };
    if (!Array.isArray(body.data)) return undefined;
    const [project] = body.data;
    return {
      kind: "ok",
      projectId: typeof project?.id === "string" ? project.id : undefined,
      projectName: typeof project?.name === "string" ? toLine(project.name, withhold) : undefined,
    };
  } catch {
    return undefined;
  }
}
