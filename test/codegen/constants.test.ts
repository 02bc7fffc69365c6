/** Constants and settings of the spec are read: one that is not would tell maintainers and users what is not so. */
import { expect, it } from "vitest";
import * as connect from "../../generated/ts/settings/connect.js";
import * as nats from "../../generated/ts/settings/nats.js";
import * as outbox from "../../generated/ts/settings/outbox.js";
import * as peer from "../../generated/ts/settings/peer.js";
import * as queue from "../../generated/ts/settings/queue.js";
import { codeOf } from "../support/code.js";

const all = Object.entries({ ...connect, ...nats, ...outbox, ...peer, ...queue });
const groups = all.filter(([name]) => name.endsWith("Constants"));
const settings = all.filter(([name]) => name.endsWith("Defaults"));
const sources = codeOf("src");
/** The bodies of SQL functions, and their macros, name a constant as `@GatewayConstants.gateway_stale_ms@`. */
const inSql = new Set(
  [...[...codeOf("schema"), ...codeOf("codegen/sql")].join("\n").matchAll(/@(\w+)\.(\w+)@/g)].map(
    ([, group, name]) => `${group}.${name}`,
  ),
);

it.each(groups)(
  "each of the constants in %s is read by the program, or by the body of an SQL function",
  (group, constants) => {
    const readers = sources.filter((text) => new RegExp(`\\b${group}\\b`, "i").test(text)).join("\n");
    const unread = Object.keys(constants).filter((name) => {
      const nameInSpec = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      const isInSql = inSql.has(`${group.charAt(0).toUpperCase()}${group.slice(1)}.${nameInSpec}`);
      return !isInSql && !new RegExp(`\\b${name}\\b`).test(readers);
    });
    expect(unread).toEqual([]);
  },
);

it.each(settings)("each of the settings in %s is read by the program", (_group, defaults) => {
  const program = sources.join("\n");
  expect(Object.keys(defaults).filter((name) => !new RegExp(`\\b${name}\\b`).test(program))).toEqual([]);
});
