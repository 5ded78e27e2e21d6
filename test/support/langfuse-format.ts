import type { AttributeValue, ReceivedSpan } from "./langfuse-decode.ts";

export interface FormatOptions {
  /** The longest value shown. Default 200. */
  width?: number;
  /** Leave out inputs, outputs, parameters and metadata. */
  outline?: boolean;
}

/** Metadata that is different in every run, or said elsewhere in the text. */
const VOLATILE =
  /^(?:queue_wait_ms|error_stack|langgraph_(?:checkpoint_ns|path|triggers|node|step)|run_id|thread_id)$/;

/** A trace as a readable tree: what a person would see in Langfuse, without ids and times. */
export function formatSpans(all: readonly ReceivedSpan[], options: FormatOptions = {}): string {
  const spans = [...new Map(all.map((span) => [span.spanId, span])).values()];
  const known = new Set(spans.map((span) => span.spanId));
  const lines: string[] = [];
  const roots = spans
    .filter((span) => span.parentSpanId === undefined || !known.has(span.parentSpanId))
    .toSorted(order);
  const [root] = roots;
  if (root === undefined) return "(no spans)";
  lines.push(...header(root, options));
  for (const top of roots) {
    if (top.parentSpanId !== undefined) lines.push("(the parent of what follows has not arrived)");
    draw(top, "", lines, { spans, options });
  }
  return `${lines.join("\n")}\n`;
}

function header(span: ReceivedSpan, options: FormatOptions): string[] {
  const of = (key: string): string => (key in span.attributes ? String(span.attributes[key]) : "-");
  const lines = [
    `trace "${of("langfuse.trace.name")}" session=${of("session.id")} user=${of("user.id")}`,
    `tags ${asList(span.attributes["langfuse.trace.tags"]).join(", ")}`,
    `environment=${of("langfuse.environment")} release=${of("langfuse.release")} version=${of("langfuse.version")}`,
  ];
  const metadata = entries(span, "langfuse.trace.metadata.").filter(([key]) => !VOLATILE.test(key));
  if (options.outline !== true && metadata.length > 0) {
    lines.push(
      `metadata ${metadata.map(([key, value]) => `${key}=${shown(value, options)}`).join(" ")}`,
    );
  }
  return [...lines, ""];
}

function draw(
  span: ReceivedSpan,
  indent: string,
  lines: string[],
  tree: { spans: readonly ReceivedSpan[]; options: FormatOptions },
): void {
  const { options } = tree;
  const { attributes } = span;
  const level = attributes["langfuse.observation.level"] ?? "DEFAULT";
  const stepNumber = attributes["langfuse.observation.metadata.langgraph_step"];
  lines.push(
    [
      `${indent}${String(attributes["langfuse.observation.type"])} ${span.name}`,
      ...(stepNumber === undefined ? [] : [`#${String(stepNumber)}`]),
      ...(level === "DEFAULT" ? [] : [String(level)]),
    ].join(" "),
  );
  const inner = `${indent}    `;
  const add = (label: string, value: AttributeValue | undefined): void => {
    if (value !== undefined) lines.push(`${inner}${label}: ${shown(value, options)}`);
  };
  add("status", attributes["langfuse.observation.status_message"]);
  if (options.outline !== true) {
    add("in", attributes["langfuse.observation.input"]);
    add("out", attributes["langfuse.observation.output"]);
    add("model", attributes["langfuse.observation.model.name"]);
    add("parameters", attributes["langfuse.observation.model.parameters"]);
    add("prompt", attributes["langfuse.observation.prompt.name"]);
    const metadata = entries(span, "langfuse.observation.metadata.").filter(
      ([key]) => !VOLATILE.test(key),
    );
    // The root's metadata is the trace's, said in the header.
    if (span.parentSpanId !== undefined && metadata.length > 0) {
      lines.push(
        `${inner}metadata: ${metadata.map(([key, value]) => `${key}=${shown(value, options)}`).join(" ")}`,
      );
    }
  }
  add("usage", attributes["langfuse.observation.usage_details"]);
  if ("langfuse.observation.completion_start_time" in attributes)
    lines.push(`${inner}first token: seen`);
  if ("langfuse.observation.metadata.error_stack" in attributes) lines.push(`${inner}stack: there`);
  const children = tree.spans.filter((child) => child.parentSpanId === span.spanId).toSorted(order);
  for (const child of children) draw(child, `${indent}  `, lines, tree);
}

function entries(span: ReceivedSpan, prefix: string): Array<[string, AttributeValue]> {
  return Object.entries(span.attributes)
    .filter(([key]) => key.startsWith(prefix))
    .map(([key, value]): [string, AttributeValue] => [key.slice(prefix.length), value])
    .toSorted(([left], [right]) => left.localeCompare(right));
}

function shown(value: AttributeValue, options: FormatOptions): string {
  const text = (typeof value === "string" ? value : JSON.stringify(value)).replaceAll("\n", "\\n");
  const width = options.width ?? 200;
  return text.length > width ? `${text.slice(0, width)}… (${text.length})` : text;
}

function asList(value: AttributeValue | undefined): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function step(span: ReceivedSpan): number {
  return Number(span.attributes["langfuse.observation.metadata.langgraph_step"] ?? 0);
}

function order(left: ReceivedSpan, right: ReceivedSpan): number {
  if (step(left) !== step(right)) return step(left) - step(right);
  if (left.startNs !== right.startNs) return left.startNs < right.startNs ? -1 : 1;
  return left.name.localeCompare(right.name);
}
