/**
 * Damage that an attack must not cause: objects of others changed or read, processes or sessions ended, or errors that are
 * neither Hawser's nor plain refusals of Postgres.
 */
import type pg from "pg";
import { errorTable } from "../../../../generated/ts/errors/errors.js";
import { type AttackerRole, relationsOf } from "./catalog.js";
import { type HostileWorld, victimMarker } from "./world.js";

/** Permitted effects of a role on others, and the reason: each entry is a sentence of docs/security.md or docs/security-model.md. */
const byDesign: readonly {
  readonly role: AttackerRole;
  /** Tables whose rows of others it may change. */
  readonly changes?: readonly string[];
  /** Secrets and payloads of others that it may read, by their names in {@link secretsOf}. */
  readonly reads?: readonly string[];
  readonly reason: string;
}[] = [
  {
    role: "hawser_peer",
    changes: [
      ...["hawser.conn_key_map", "hawser.conn_mess_number", "hawser.conn_messages", "hawser.topic_addr"],
      "hawser_peer_data.channels",
      "hawser_peer_data.cursors",
      "hawser_peer_data.stored_messages",
      "hawser_data.owners",
      "hawser_peer_data.peers",
      "hawser_peer_data.routes",
      "hawser_peer_data.listeners",
      "hawser_peer_data.topics",
      "hawser_data.queue",
    ],
    reads: ["mesh secret", "a stored message", "a message for peers", "a dead letter"],
    reason:
      "a login with hawser_peer can read, add and delete stored messages, move cursors and release stored messages, for every peer",
  },
  {
    role: "hawser_bridge",
    changes: [
      "hawser_bridge_data.stream_subscriptions",
      "hawser_bridge_data.saved_messages",
      "hawser_data.dead_letters",
    ],
    reads: ["gateway password", "executor password", "token", "option", "a message for NATS", "a dead letter"],
    reason:
      "it is the login of hawser serve, which publishes the outbox, runs subscriptions and keeps their dead letters",
  },
  {
    role: "hawser_nats",
    changes: ["calls of the victim's functions"],
    reads: ["a value in a bucket"],
    reason:
      "all roles with hawser_nats use one NATS user: they may publish what others subscribe to, and share its buckets",
  },
];

const allowed = (role: AttackerRole, what: "changes" | "reads"): ReadonlySet<string> =>
  new Set(byDesign.filter((each) => each.role === role).flatMap((each) => each[what] ?? []));

/** Descriptions of secrets, by a text whose appearance discloses the secret. */
export type Secrets = ReadonlyMap<string, string>;

/** The secrets of a world, as text and as hexadecimal digits, in which `bytea` is shown. */
export async function secretsOf(world: HostileWorld): Promise<Secrets> {
  const secrets = new Map<string, string>();
  const add = (what: string, values: readonly string[]): void => {
    for (const value of values) {
      if (value.length < 16) throw new Error(`the ${what} is too short to be found: ${value}`);
      secrets.set(value, what);
      secrets.set(Buffer.from(value).toString("hex"), what);
    }
  };
  add("mesh secret", await world.column("SELECT encode(secret, 'hex') FROM hawser_peer_data.mesh_secret"));
  add("gateway password", await world.column("SELECT password FROM hawser_bridge_data.gateway_secret"));
  add("executor password", await world.column("SELECT password FROM hawser_bridge_data.executor_login"));
  add("token", await world.column("SELECT encode(token, 'hex') FROM hawser_bridge_data.nats_handlers"));
  add("option", await world.column("SELECT options ->> 'token' FROM hawser_bridge_data.nats_server"));
  for (const [suffix, what] of [
    ["-for-nats", "a message for NATS"],
    ["-for-peers", "a message for peers"],
    ["-stored", "a stored message"],
    ["-dead-", "a dead letter"],
    ["-result", "a result"],
    ["-in-a-bucket", "a value in a bucket"],
  ] as const) {
    add(what, [`${victimMarker}${suffix}`]);
  }
  return secrets;
}

/** The secrets that a text has and the role may not read. */
export function leaks(role: AttackerRole, shown: string, secrets: Secrets): string[] {
  const mayRead = allowed(role, "reads");
  return [...secrets].filter(([value, what]) => !mayRead.has(what) && shown.includes(value)).map(([, what]) => what);
}

const typed: ReadonlySet<string> = new Set(Object.values(errorTable).map(({ sqlstate }) => sqlstate));
/** Never right, even where one of Hawser's own errors has that state, too. */
const never = /^(XX|57P|53200|54001)/;

/** SQLSTATEs that are neither Hawser's nor of the classes 22 and 23 or 42501, and why they are right. */
const plain: Readonly<Record<string, string>> = {
  "42704": "an oid, a role or a type that is not there, given for a regproc",
  "42725": "a name of several functions, given for a regproc",
  "42601": "a text that is no name, given for a regproc",
  "42602": "the same",
  "42809": "the function of a trigger, called by itself",
  "42P13": "a function that a wrapper cannot be made for",
  HV00D: "an option of a foreign server that there is none of",
  "428C9": "a value for a generated column",
  "40P01": "two attackers that lock each other's rows",
  "2202E": "an array of two dimensions",
};

/** Errors of some calls alone: the beginning of the call, the SQLSTATE, and why it is right. */
const ofCalls: readonly { readonly call: string; readonly code: string; readonly reason: string }[] = [
  {
    call: "hawser_fdw.",
    code: "54000",
    reason: "functions of everybody that compute only: Postgres refuses a text that is too long for jsonb",
  },
];

/** Describes a defect of a call's error; undefined if the error is an expected one. */
export function wrongError(call: string, { code = "", message, hint }: Partial<pg.DatabaseError>): string | undefined {
  const shown = `${code} ${message?.slice(0, 300)}`;
  if (never.test(code)) return shown;
  if (ofCalls.some((each) => call.startsWith(each.call) && code === each.code)) return undefined;
  // Unlike that of Postgres, "program_limit_exceeded" and the like of Hawser say what to do.
  if (/^(53|54|55|58|P0)/.test(code)) return typed.has(code) && hint ? undefined : shown;
  if (typed.has(code) || code in plain || /^(22|23)/.test(code) || code === "42501") return undefined;
  return shown;
}

/** Rows as text, by the table or kind of object that they are of. */
export type Possessions = ReadonlyMap<string, readonly string[]>;

/** Reads all objects of others, which an attack must leave unchanged. */
export async function possessions(world: HostileWorld): Promise<Possessions> {
  const found = new Map<string, readonly string[]>();
  const note = async (name: string, sql: string): Promise<void> => {
    found.set(name, await world.column(sql));
  };
  for (const [name, { others, columns }] of Object.entries(relationsOf)) {
    const row = columns === undefined ? "t::text" : `(${columns})::text`;
    if (others !== undefined) await note(name, `SELECT ${row} FROM ${name} AS t WHERE ${others} ORDER BY 1`);
  }
  await note(
    "calls of the victim's functions",
    "SELECT c::text FROM victim.calls AS c WHERE payload LIKE 'attack%' ORDER BY 1",
  );
  const attackers = [...world.attackers.values()].map(({ name }) => `'${name}'`).join(", ");
  const mine = [world.victim.name, world.canary.name, ...world.logins.values()].map((name) => `'${name}'`).join(", ");
  const groups = "'hawser_owner', 'hawser_peer', 'hawser_nats', 'hawser_bridge', 'hawser_executor', 'hawser_viewer'";
  const roles = `${mine}, ${groups}, (SELECT user_name FROM hawser_bridge_data.executor_login)`;
  await note("roles", `SELECT r::text FROM pg_roles AS r WHERE rolname IN (${roles}) ORDER BY 1`);
  await note(
    "members of roles",
    `SELECT roleid::regrole || ' ' || member::regrole || ' ' || admin_option FROM pg_auth_members
      WHERE member::regrole::text IN (${roles}) AND roleid::regrole::text IN (${roles}) ORDER BY 1`,
  );
  // Objects in the attackers' schemas and their wrappers belong to the attackers, who may change them.
  const others = (owner: string): string => `pg_get_userbyid(${owner}) NOT IN (${attackers})`;
  await note("functions", `SELECT p.oid || p::text FROM pg_proc AS p WHERE ${others("proowner")} ORDER BY 1`);
  await note(
    "relations",
    `SELECT oid::regclass || relkind::text || relowner::regrole || coalesce(relacl::text, '') FROM pg_class
      WHERE ${others("relowner")} AND relkind NOT IN ('t', 'i') AND relnamespace::regnamespace::text !~ '^pg_(temp|toast)' ORDER BY 1`,
  );
  await note(
    "types",
    `SELECT oid || coalesce(typacl::text, '') FROM pg_type WHERE ${others("typowner")} AND typnamespace::regnamespace::text !~ '^pg_(temp|toast)' ORDER BY 1`,
  );
  await note("schemas", `SELECT n::text FROM pg_namespace AS n WHERE nspname !~ '^pg_(temp|toast)' ORDER BY 1`);
  await note(
    "what attackers have made outside of their schemas",
    `SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE NOT ${others("proowner")} AND pronamespace::regnamespace::text !~ '^(attack_|hawser_run$)'
     UNION ALL SELECT c.oid::regclass::text FROM pg_class AS c WHERE NOT ${others("relowner")} AND relnamespace::regnamespace::text !~ '^(attack_|pg_)' ORDER BY 1`,
  );
  await note(
    "servers and triggers",
    `SELECT s::text FROM pg_foreign_server AS s UNION ALL SELECT e::text FROM pg_event_trigger AS e UNION ALL SELECT d::text FROM pg_default_acl AS d ORDER BY 1`,
  );
  await note(
    "settings",
    `SELECT s::text FROM pg_db_role_setting AS s
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
         OR (setdatabase = 0 AND (setrole = 0 OR setrole::regrole::text IN (${roles}))) ORDER BY 1`,
  );
  return found;
}

/** Changes to objects of others that the role is not permitted to make. */
export function changed(role: AttackerRole, before: Possessions, after: Possessions): string[] {
  const mayChange = allowed(role, "changes");
  return [...before].flatMap(([name, rows]) => {
    if (mayChange.has(name)) return [];
    const now = after.get(name) ?? [];
    const gone = relationsOf[name]?.mayGo === undefined ? rows.filter((row) => !now.includes(row)) : [];
    return [
      ...gone.map((row) => `${name} had ${row}`),
      ...now.filter((row) => !rows.includes(row)).map((row) => `${name} has ${row}`),
    ];
  });
}
