/**
 * What works and is not as safe as it could be.
 */
import type { NatsState } from "./inspect.js";

/** Options whose values nobody should read; their `_path` twins name a file instead. */
const secretOptions: readonly string[] = ["password", "token", "nkey_seed"];

/** One line each, with what to do. No value of an option is ever part of it. */
export function natsWarnings(state: NatsState): string[] {
  return [
    ...sharedDblink(state),
    ...otherDblinkUsers(state),
    ...secrets(state),
    ...surplusServers(state),
    ...disabled(state),
  ];
}

function sharedDblink({ dblink, openFunctions }: NatsState): string[] {
  if (openFunctions.length === 0) return [];
  const where = dblink === undefined || dblink.isBare ? "" : ` in the schema "${dblink.schema}"`;
  return [
    `every role may call dblink${where}: in a session that uses the SQL functions it can send calls to the gateway, or put a ` +
      "connection of its own in the place of the gateway's. To end that, move dblink: ALTER EXTENSION dblink SET SCHEMA …",
  ];
}

function otherDblinkUsers({ dblinkUsers, openFunctions }: NatsState): string[] {
  if (dblinkUsers.length === 0 || openFunctions.length > 0) return [];
  const named = dblinkUsers.slice(0, 5).map((role) => `"${role}"`);
  const more = dblinkUsers.length > named.length ? ` and ${dblinkUsers.length - named.length} more` : "";
  return [
    `${named.join(", ")}${more} may call dblink, and with it use or replace the gateway's connection of a session that is ` +
      "theirs: REVOKE USAGE on the schema of dblink where it is not needed",
  ];
}

function secrets({ servers }: NatsState): string[] {
  return servers.flatMap(({ name, options }) =>
    options
      .filter((option) => secretOptions.includes(option))
      .map(
        (option) =>
          `the option ${option} of the foreign server "${name}" can be read by every role: put it into CREATE USER MAPPING ` +
          `for the role of \`hawser serve\`, name a file with ${option}_path, or use hawser.set_nats_server; then change it`,
      ),
  );
}

function surplusServers({ servers }: NatsState): string[] {
  if (servers.length < 2) return [];
  const names = servers.map(({ name }) => `"${name}"`).join(", ");
  return [`a database has one NATS server, and here ${servers.length} are defined: ${names}. DROP SERVER all but one`];
}

function disabled({ eventTriggers }: NatsState): string[] {
  return eventTriggers
    .filter(({ enabled }) => !enabled)
    .map(({ name }) => `the event trigger ${name} is disabled: ALTER EVENT TRIGGER ${name} ENABLE`);
}
