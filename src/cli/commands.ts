/**
 * The commands by name. To add one: write it in a file of its own, as `dev.ts` is, move its name from
 * {@link plannedCommands} to {@link commands}, and say how to load it.
 */
import type { CommandDef } from "citty";

/** A command with whatever arguments it defines. */
// biome-ignore lint/suspicious/noExplicitAny: citty's own type for a command among others (its SubCommandsDef).
export type AnyCommand = CommandDef<any>;

/** The commands. Each is loaded when it is run, so that `hawser send` does not load what `dev` needs. */
export const commands: Readonly<Record<string, () => Promise<AnyCommand>>> = {
  dev: async () => (await import("./dev.js")).dev,
};

/** The commands of the design that this version does not have, and what they will do. */
export const plannedCommands: Readonly<Record<string, string>> = {
  init: "Prepare a database for Hawser",
  serve: "Run the gateway and the bridge",
  send: "Send a message to a topic",
  listen: "Print the messages of a topic",
  topics: "List the topics and their listeners",
  peers: "List the peers",
  pending: "List the stored messages that wait for a listener",
  reassign: "Give a peer's waiting messages to another one",
  dead: "List, retry and discard dead letters",
  extension: "Package the SQL functions as an extension",
  doctor: "Look for what is wrong with an installation",
};
