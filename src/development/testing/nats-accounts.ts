/**
 * Accounts of a nats-server, one for each stack: subjects, streams, buckets and stores of one are invisible to the
 * others. Clients need no credentials: the relay in front of the server adds those of its stack's account to each
 * connection.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import type { RelayRules } from "./relay.js";

/** Account with its only user. */
export interface NatsAccount {
  readonly user: string;
  readonly password: string;
}

/** Greatest number of simultaneous stacks; an unused account costs the server next to nothing. */
const count = 256;

/** Accounts of a run, with a secret of the run as password. */
export function accountsOf(secret: string): NatsAccount[] {
  return Array.from({ length: count }, (_, index) => ({ user: `test${index + 1}`, password: secret }));
}

/** Configuration of a server with these accounts. */
export function configOf(accounts: readonly NatsAccount[]): string {
  const lines = accounts.map(
    ({ user, password }) => `  ${user} { jetstream: enabled, users: [{ user: ${user}, password: "${password}" }] }`,
  );
  return `accounts {\n${lines.join("\n")}\n}\n`;
}

/** Deletes all streams of the account, with its buckets and object stores, so that another stack can use it. */
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

/** @param account undefined if clients have their own credentials */
export function natsRules(account: NatsAccount | undefined): RelayRules {
  return {
    // Other servers of a cluster would bypass the relay.
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
