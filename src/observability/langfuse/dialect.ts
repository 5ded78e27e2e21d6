import type { Attributes, Dialect, FieldWriter } from "../trace/dialect.ts";
import type { LangfuseSettings } from "./config.ts";
import { TEXT_LIMITS, type Cut } from "../trace/identity.ts";
import { simplifyLangChain } from "../trace/messages.ts";
import type { LangfusePackages } from "./packages.ts";
import type { ObservationFields } from "../trace/run-trace.ts";

/** Langfuse's own attributes, by the official packages' mapping. */
export function createLangfuseDialect(
  packages: LangfusePackages,
  settings: LangfuseSettings,
  cut: Cut,
): Dialect {
  const { createObservationAttributes, LangfuseOtelSpanAttributes: names } = packages.langfuse;
  const deployment: Attributes = {
    [names.ENVIRONMENT]: settings.environment,
    ...(settings.release === undefined
      ? {}
      : { [names.RELEASE]: cut.text(settings.release, TEXT_LIMITS.id) }),
    ...(settings.version === undefined
      ? {}
      : { [names.VERSION]: cut.text(settings.version, TEXT_LIMITS.id) }),
  };
  return {
    simplify: simplifyLangChain,
    exceptions: false,
    links: false,
    common: ({ name, sessionId, userId, tags }) => ({
      [names.TRACE_NAME]: name,
      ...(sessionId === undefined ? {} : { [names.TRACE_SESSION_ID]: sessionId }),
      ...(userId === undefined ? {} : { [names.TRACE_USER_ID]: userId }),
      [names.TRACE_TAGS]: tags,
      ...deployment,
    }),
    observation({ observation, joins }, fields, write) {
      const attributes = createObservationAttributes(
        observation.type,
        toLangfuse(fields, write),
      ) as Attributes;
      if (fields.completionStart !== undefined) {
        // Not through the official mapping, which would put the date in quotes.
        attributes[names.OBSERVATION_COMPLETION_START_TIME] = fields.completionStart.toISOString();
      }
      // Its parent is the caller's, who may not send to Langfuse: the trace's input and output are this one's.
      if (joins) attributes[names.AS_ROOT] = true;
      return attributes;
    },
    trace: (metadata) =>
      Object.fromEntries(
        Object.entries(metadata).map(([key, text]) => [`${names.TRACE_METADATA}.${key}`, text]),
      ),
  };
}

type LangfuseFields = Parameters<LangfusePackages["langfuse"]["createObservationAttributes"]>[1];

function toLangfuse(fields: ObservationFields, write: FieldWriter): LangfuseFields {
  const metadata = withStack(fields);
  return defined({
    input: write.content("input", fields.input),
    output: write.content("output", fields.output),
    level: fields.level,
    statusMessage: write.statusMessage(fields.statusMessage),
    metadata: metadata === undefined ? undefined : write.metadata(metadata),
    model: fields.model,
    modelParameters: write.parameters(fields.parameters),
    usageDetails: fields.usage,
    prompt: fields.prompt,
  });
}

/** Langfuse has no place for a stack of its own. */
function withStack(fields: ObservationFields): ObservationFields["metadata"] {
  return fields.errorStack === undefined
    ? fields.metadata
    : { ...fields.metadata, error_stack: fields.errorStack };
}

function defined<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
