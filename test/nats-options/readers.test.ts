/**
 * An option that nothing reads would be accepted and do nothing. The compiler asks here who reads a new one.
 */
import { expect, it } from "vitest";
import { connectionOptions, type NatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { readPage } from "../readme/pages.js";
import { codeOf } from "../support/code.js";
import { cases } from "./cases.js";

/** The folder or file of the code that reads each option. */
const readers = {
  host: "src/nats",
  port: "src/nats",
  capacity: "src/gateway",
  tls_ca_path: "src/nats",
  tls_cert_path: "src/nats",
  tls_key_path: "src/nats",
  tls_insecure: "src/nats",
  domain: "src/gateway",
  creds_path: "src/nats",
  username: "src/nats",
  password_path: "src/nats",
  password: "src/nats",
  nkey_seed_path: "src/nats",
  nkey_seed: "src/nats",
  token_path: "src/nats",
  token: "src/nats",
  notify_subject: "src/bridge",
  patroni_url: "src/bridge",
  replicas: "src/gateway",
  max_role_subscriptions: "schema/functions/bridge",
  responder_timeout_ms: "src/bridge",
} satisfies Record<keyof NatsServerOptions, string>;

it.each(Object.entries(readers))("option %s is read by %s", (name, path) => {
  // As a property, destructured, or as a key of the options in SQL.
  expect(codeOf(path).join("\n")).toMatch(new RegExp(`[.]${name}\\b|[{,]\\s*${name}\\b|->>\\s*'${name}'`));
});

it("has the options of the connection, and no others, read by the code that connects", () => {
  const read = Object.entries(readers).filter(([, path]) => /^src\/nats(\/|$)/.test(path));
  expect([...connectionOptions].sort()).toEqual(read.map(([name]) => name).sort());
});

it("has a value that is accepted and one that is refused among the cases that both validators are tried with", () => {
  const accepted = new Set(cases.flatMap(({ refused, options }) => (refused ? [] : Object.keys(options))));
  const refused = new Set(cases.flatMap((tried) => (tried.refused?.[1] === "HV024" ? [tried.refused[0]] : [])));
  const { properties } = JSON.parse(readPage("schema/nats-server-options.schema.json")) as { properties: object };
  expect(Object.keys(properties).filter((name) => !accepted.has(name) || !refused.has(name))).toEqual([]);
});

it("says of each text that must not be empty that it has a character at least", () => {
  const { properties } = JSON.parse(readPage("schema/nats-server-options.schema.json")) as {
    properties: Record<string, { pattern?: string; minLength?: number }>;
  };
  const wrong = Object.entries(properties).filter(
    ([, { pattern, minLength = 0 }]) => pattern !== undefined && !new RegExp(pattern, "u").test("") && minLength < 1,
  );
  expect(wrong.map(([name]) => name)).toEqual([]);
});
