/**
 * The commands by name. To add one: write it in a file of its own, as `dev.ts` is, and say
 * in {@link commands} how to load it.
 */
import type { CommandDef } from "citty";

/** A command with whatever arguments it defines. */
// biome-ignore lint/suspicious/noExplicitAny: citty's own type for a command among others (its SubCommandsDef).
export type AnyCommand = CommandDef<any>;

/** The commands. Each is loaded when it is run, so that `hawser send` does not load what `dev` needs. */
export const commands: Readonly<Record<string, () => Promise<AnyCommand>>> = {
  dev: async () => (await import("./dev.js")).dev,
  init: async () => (await import("./init.js")).init,
  extension: async () => (await import("./extension.js")).extension,
  serve: async () => (await import("./serve.js")).serve,
  send: async () => (await import("./send.js")).send,
  listen: async () => (await import("./listen.js")).listen,
  topics: async () => (await import("./topics.js")).topics,
  peers: async () => (await import("./peers.js")).peers,
  pending: async () => (await import("./pending.js")).pending,
  secret: async () => (await import("./secret.js")).secret,
  reassign: async () => (await import("./reassign.js")).reassign,
  dead: async () => (await import("./dead.js")).dead,
  doctor: async () => (await import("./doctor.js")).doctor,
};
