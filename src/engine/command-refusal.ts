import type { CommandError } from "../protocol/commands.ts";

/** A command that cannot be carried out, with the protocol's name for the reason. */
export class CommandRefusal extends Error {
  readonly code: CommandError;

  constructor(code: CommandError, message: string) {
    super(message);
    this.name = "CommandRefusal";
    this.code = code;
  }
}
