/**
 * Accounts of a nats-server, one for each stack: subjects, streams, buckets and stores of one are not there for another.
 * Clients need no credentials: the relay before the server gives each connection those of its stack's account.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import type { RelayRules } from "./relay.js";

/** An account, and its one user. */
export interface NatsAccount {
  readonly user: string;
  readonly password: string;
}

/** As many stacks as a run has at one time; an account that nobody uses costs the server next to nothing. */
const count = 256;

/** The accounts of a run, by a secret of the run. */
export function accountsOf(secret: string): NatsAccount[] {
  return Array.from({ length: count }, (_, index) => ({ user: `test${index + 1}`, password: secret }));
}

/** The configuration of a server that has them. */
export function configOf(accounts: readonly NatsAccount[]): string {
  const lines = accounts.map(
    ({ user, password }) => `  ${user} { jetstream: enabled, users: [{ user: ${user}, password: "${password}" }] }`,
  );
  return `accounts {\n${lines.join("\n")}\n}\n`;
}

/** Nothing of the account is left in the server, so that another stack can have it. */
export async function emptyAccount(url: string, { user, password }: NatsAccount): Promise<void> {
  const connection = await connect({ servers: url, user, pass: password });
  try {
    const { streams } = await jetstreamManager(connection);
    for await (const { config } of streams.list()) await streams.delete(config.name);
  } finally {
    await connection.close();
  }
}

const info = /^INFO (\{.*\})\s*$/;
const greeting = /^CONNECT (\{.*\})\s*$/;

/** @param account undefined: clients bring their own credentials */
export function natsRules(account: NatsAccount | undefined): RelayRules {
  return {
    // Other servers of a cluster would lead past the relay.
    firstOfServer: (line) =>
      changed(line, info, "INFO", ({ connect_urls: _, auth_required, ...rest }) => ({
        ...rest,
        ...(account === undefined && auth_required !== undefined && { auth_required }),
      })),
    firstOfClient:
      account &&
      ((line) =>
        changed(line, greeting, "CONNECT", (options) => ({ ...options, user: account.user, pass: account.password }))),
  };
}

type Json = Record<string, unknown>;

function changed(line: string, pattern: RegExp, word: string, change: (value: Json) => Json): string {
  const text = pattern.exec(line)?.[1];
  return text === undefined ? line : `${word} ${JSON.stringify(change(JSON.parse(text) as Json))}`;
}
