import { AgentCard } from "@a2a-js/sdk";
import type { Assistant } from "../../protocol/assistants.ts";

const MODES = ["text/plain", "application/json"];

/** What other agents read of an assistant before they talk to it. */
export function toAgentCard(
  assistant: Assistant,
  options: { baseUrl: string; version: string },
): AgentCard {
  const url = `${options.baseUrl}/a2a/${assistant.assistant_id}`;
  const description = assistant.description ?? `The agent "${assistant.graph_id}".`;
  return {
    name: assistant.name,
    description,
    supportedInterfaces: ["1.0", "0.3"].map((protocolVersion) => ({
      url,
      protocolBinding: "JSONRPC",
      tenant: "",
      protocolVersion,
    })),
    provider: undefined,
    version: `${options.version}+${assistant.version}`,
    capabilities: {
      streaming: true,
      pushNotifications: false,
      extendedAgentCard: false,
      extensions: [],
    },
    securitySchemes: {},
    securityRequirements: [],
    defaultInputModes: MODES,
    defaultOutputModes: MODES,
    skills: [
      {
        id: assistant.assistant_id,
        name: assistant.name,
        description,
        tags: [assistant.graph_id],
        examples: [],
        inputModes: MODES,
        outputModes: MODES,
        securityRequirements: [],
      },
    ],
    signatures: [],
  };
}

/** A card on the wire. Clients of version 0.3 look for the address at the top. */
export function toWireCard(card: AgentCard): object {
  return {
    ...(AgentCard.toJSON(card) as object),
    url: card.supportedInterfaces[0]?.url,
    preferredTransport: "JSONRPC",
    protocolVersion: "0.3.0",
  };
}
