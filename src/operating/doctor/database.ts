/** Connection of this login to Postgres. */
import pg from "pg";
import { ago } from "../../foundation/errors/index.js";
import {
  type DatabaseAddress,
  isServerError,
  isTransactionPooled,
  noSuitableHost,
  poolerWords,
} from "../../foundation/postgres/index.js";
import { type NotifyQueue, notifyQueueLimit, notifyQueueSql } from "../../jobs-and-peers/store/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding } from "./examine.js";
import { connectMs, type Facts, open } from "./facts.js";

const { escapeIdentifier: identifier } = pg;

/** Check that opens the session of all other checks. */
export function databaseCheck(facts: Facts): Check {
  const place = facts.address.described;
  return {
    name: "database",
    timeoutMs: facts.address.hosts.length * connectMs + 1_000,
    run: async (signal) => {
      try {
        const session = await open(facts.address, signal);
        facts.client = session.client;
        if (await isTransactionPooled(facts.address, session)) return { findings: [poolerFinding(place)] };
        return { seen: `"${place.role}" is connected to the database "${place.database}" at ${place.server}` };
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        return { findings: [refusalOf(error, place)] };
      }
    },
  };
}

/** Used part of the NOTIFY queue from which on Postgres warns in its log, too. */
const notifyQueueWarning = 0.5;

/** Check of the NOTIFY queue, which all databases of the server share. */
export function notifyQueueCheck(facts: Facts): Check {
  return catalogCheck(
    "notify-queue",
    async () => {
      const [queue] = await facts.rows<NotifyQueue>(notifyQueueSql);
      const { used } = queue!;
      const percent = `${Math.floor(used * 100)} %`;
      if (used < notifyQueueWarning) return { seen: `${percent} of the NOTIFY queue is used` };
      return { findings: [notifyQueueFinding(queue!, percent)] };
    },
    { needs: ["database"] },
  );
}

function notifyQueueFinding({ used, holder }: NotifyQueue, percent: string): Finding {
  const isLeftOut = used >= notifyQueueLimit;
  const effect = isLeftOut
    ? "Hawser leaves its notifications out, and finds their messages by polls; commits of others that notify will fail"
    : `from ${notifyQueueLimit * 100} % on, Hawser leaves its notifications out`;
  const who =
    holder === null
      ? "this login may not see the transactions of other roles"
      : `the session ${holder.pid} of the role "${holder.role}"${holder.application ? ` ("${holder.application}")` : ""} has the oldest transaction, of ${ago(holder.seconds)}`;
  return {
    severity: isLeftOut ? "error" : "warning",
    what: `${percent} of the NOTIFY queue of the Postgres server is used: ${effect}; ${who}`,
    remedy: `A session that listens and stays in a transaction keeps the queue. ${
      holder === null
        ? "GRANT pg_read_all_stats to this login, and run `hawser doctor` again to see which one"
        : `Let it commit or roll back, or end it: SELECT pg_terminate_backend(${holder.pid})`
    }`,
  };
}

function poolerFinding({ server }: DescribedServer): Finding {
  const what = `at ${server} a transaction pooler is in front of Postgres: ${poolerWords.what}, and nothing more can be checked`;
  return { severity: "error", code: "transaction_pooler", what, remedy: poolerWords.remedy };
}

type DescribedServer = DatabaseAddress["described"];

function refusalOf(error: Error, place: DescribedServer): Finding {
  const [what, remedy] = isServerError(error) ? bySqlstate(error, place) : bySocket(error, place);
  return { severity: "error", code: "store_failed", what, remedy };
}

type Words = readonly [what: string, remedy: string];

function bySqlstate({ code, message, routine }: pg.DatabaseError, { role, database, server }: DescribedServer): Words {
  switch (code) {
    case "28P01":
      return [
        `Postgres at ${server} refused the password of the login "${role}"`,
        `Set the right password in HAWSER_DATABASE_URL or PGPASSWORD, or change it: ALTER ROLE ${identifier(role)} PASSWORD '…'`,
      ];
    case "28000":
      return [
        `Postgres at ${server} refused the login "${role}": ${message}`,
        `Allow it: CREATE ROLE ${identifier(role)} LOGIN PASSWORD '…', or add a line to pg_hba.conf for it and this machine`,
      ];
    case "3D000":
      return [
        `Postgres at ${server} has no database "${database}"`,
        `Name the right one, or CREATE DATABASE ${identifier(database)} and run \`hawser init\``,
      ];
    case "42501":
      return [
        `the login "${role}" may not connect to the database "${database}"`,
        `GRANT CONNECT ON DATABASE ${identifier(database)} TO ${identifier(role)}`,
      ];
    case "53300":
      return [`Postgres at ${server} has no free connection: ${message}`, remedyOfLimit(routine, role, database)];
    default:
      return [`Postgres at ${server} refused the connection: ${message}`, "Read the log of Postgres"];
  }
}

/**
 * Remedy for an exceeded connection limit of the role, the database or the server. The name of the routine that raised
 * the error tells them apart; the text of the error may be translated.
 */
function remedyOfLimit(routine: string | undefined, role: string, database: string): string {
  const sessions = "end unused sessions: SELECT * FROM pg_stat_activity";
  if (routine === "InitializeSessionUserId") {
    return `ALTER ROLE ${identifier(role)} CONNECTION LIMIT -1, or a higher limit; or ${sessions}`;
  }
  if (routine === "CheckMyDatabase") {
    return `ALTER DATABASE ${identifier(database)} CONNECTION LIMIT -1, or a higher limit; or ${sessions}`;
  }
  return `Raise max_connections of Postgres, or ${sessions}`;
}

const anotherAuthority: Words = [
  "is signed by an authority that this machine does not trust",
  "Name the file with the certificate of that authority: sslrootcert in the database URL, or PGSSLROOTCERT",
];

/** Fault of the certificate of Postgres and its remedy, by the error code of Node.js. */
const certificateFaults: Readonly<Record<string, Words>> = {
  CERT_HAS_EXPIRED: [
    "has expired",
    "Renew it: ssl_cert_file and ssl_key_file of Postgres, then SELECT pg_reload_conf()",
  ],
  CERT_NOT_YET_VALID: ["is not valid yet", "Check the clocks of both machines"],
  ERR_TLS_CERT_ALTNAME_INVALID: [
    "is for another host",
    "Name the host as the certificate does, or give Postgres a certificate for this name; sslmode=verify-ca does not check it",
  ],
  DEPTH_ZERO_SELF_SIGNED_CERT: anotherAuthority,
  SELF_SIGNED_CERT_IN_CHAIN: anotherAuthority,
  UNABLE_TO_GET_ISSUER_CERT: anotherAuthority,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: anotherAuthority,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: anotherAuthority,
};

function bySocket(error: Error, { role, server }: DescribedServer): Words {
  const hosts =
    error.message === noSuitableHost && error instanceof AggregateError ? (error.errors as Error[]) : [error];
  // An unreachable host must not hide why another host, which answered, is unsuitable.
  if (hosts.length > 1 && !hosts.every(isAbsent) && !hosts.every(isUnresolved)) {
    return [
      `no host of ${server} is usable: ${[...new Set(hosts.map(reasonOf))].join("; ")}`,
      "Start the unreachable hosts, or name the right ones. target_session_attrs of the database URL selects the kind of " +
        "server; by default, of several hosts, one that accepts writes",
    ];
  }
  if (hosts.every(isAbsent)) {
    return [
      `nothing listens at ${server}, where Postgres should be`,
      "Start Postgres, or name the right host and port with --database-url or HAWSER_DATABASE_URL",
    ];
  }
  if (hosts.every(isUnresolved)) {
    return [
      `the host of ${server} cannot be resolved`,
      "Name the right host with --database-url or HAWSER_DATABASE_URL",
    ];
  }
  if (/client password must be a string/.test(error.message)) {
    return [
      `Postgres at ${server} requires a password for the login "${role}", and none was given`,
      "Set it in HAWSER_DATABASE_URL or PGPASSWORD",
    ];
  }
  const [fault] = codesOf(error).flatMap((code) => (code in certificateFaults ? [certificateFaults[code]!] : []));
  if (fault !== undefined) return [`the certificate of Postgres at ${server} ${fault[0]}`, fault[1]];
  if (/timeout/i.test(error.message)) {
    return [
      `Postgres at ${server} did not answer within ${connectMs} ms`,
      "Check whether it runs, and whether a firewall is in between: run pg_isready on both machines",
    ];
  }
  return [
    `no connection to Postgres at ${server}: ${reasonOf(error)}`,
    "Check host, port and sslmode of the database URL",
  ];
}

const isAbsent = (error: Error) => codesOf(error).some((code) => code === "ECONNREFUSED" || code === "ENOENT");
const isUnresolved = (error: Error) => codesOf(error).some((code) => code === "ENOTFOUND" || code === "EAI_AGAIN");

/** Reason of an error in one line. Node.js sets no message on the error of a host with several addresses. */
function reasonOf(error: Error): string {
  if (error instanceof AggregateError && error.message === "")
    return (error.errors as Error[]).map(reasonOf).join(", ");
  return error.message || codesOf(error).join(", ");
}

function codesOf(error: Error): string[] {
  const each = error instanceof AggregateError ? (error.errors as Error[]) : [error];
  return each.flatMap((one) => ("code" in one && typeof one.code === "string" ? [one.code] : []));
}
