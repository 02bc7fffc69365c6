/**
 * Checks of the NATS server that the database defines, and of the secrets that the definition exposes. The definition
 * is read as `hawser serve` reads it, but without changing anything.
 */
import pg from "pg";
import { authModes, type CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { tables } from "../../../generated/ts/rows/nats.js";
import { checkNatsServerOptions, natsAddresses, type OptionViolation } from "../../nats/connections/index.js";
import { catalogCheck, failed, faultCheck } from "./check.js";
import type { Check, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Definition of the NATS server, as far as this login may read it. */
export type NatsDefinition =
  | { readonly kind: "none" }
  /** This login may not read the definition. */
  | { readonly kind: "hidden" }
  | { readonly kind: "several" }
  /** The credentials may be in the user mapping of another login, so the whole definition is unknown. */
  | {
      readonly kind: "partial";
      readonly mappedFor: string;
      readonly notifySubject: string | undefined;
      readonly correction: string;
    }
  | { readonly kind: "wrong"; readonly violation: OptionViolation; readonly from: string }
  | { readonly kind: "complete"; readonly options: CompleteNatsServerOptions; readonly correction: string };

interface Row {
  readonly options: Record<string, unknown> | null;
  readonly server: string | null;
  readonly mapping: Record<string, unknown> | null;
  readonly mapped_for: string | null;
  readonly role: string;
}

/**
 * Definition that `hawser serve` would use: a foreign server that changed since it was last seen replaces the stored
 * options.
 */
const definitionSql = `
  SELECT CASE WHEN d.changed THEN f.options ELSE s.options END AS options,
         CASE WHEN d.changed THEN f.server_name ELSE s.server_name END AS server, f.mapping, current_user::text AS role,
         (SELECT string_agg(CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, ', ' ORDER BY m.umuser)
            FROM pg_user_mappings AS m WHERE m.srvname = f.server_name AND m.usename <> current_user) AS mapped_for
    FROM ${tables.natsServer} AS s
    LEFT JOIN hawser.nats_foreign_servers() AS f ON true
    CROSS JOIN LATERAL (
      SELECT f.server_name IS NOT NULL AND (s.seen_server_name, s.seen_options) IS DISTINCT FROM (f.server_name, f.options) AS changed
    ) AS d`;

const maySql = `
  SELECT has_table_privilege('${tables.natsServer}', 'SELECT') AND has_function_privilege('hawser.nats_foreign_servers()', 'EXECUTE') AS may`;

/** Reads the definition, once per examination. */
export function natsDefinition(facts: Facts): Promise<NatsDefinition> {
  return facts.once("natsDefinition", () => readDefinition(facts));
}

async function readDefinition(facts: Facts): Promise<NatsDefinition> {
  if ((await facts.state()).foreignData.servers.length > 1) return { kind: "several" };
  if (!(await facts.rows<{ may: boolean }>(maySql))[0]!.may) return { kind: "hidden" };
  const [row] = await facts.rows<Row>(definitionSql);
  if (row === undefined || row.options === null) return { kind: "none" };
  const { options, server, mapping, mapped_for: mappedFor } = row;
  if (server !== null && mapping === null && mappedFor !== null) {
    const subject = options["notify_subject"];
    return {
      kind: "partial",
      mappedFor,
      notifySubject: typeof subject === "string" ? subject : undefined,
      correction: `the user mapping for ${mappedFor} of the server ${pg.escapeIdentifier(server)} (run \`hawser doctor\` as that login for the statement)`,
    };
  }
  const result = checkNatsServerOptions({ ...options, ...(server === null ? {} : mapping) });
  if (result.ok) return { kind: "complete", options: result.options, correction: correctionOf(row) };
  const from = server === null ? "hawser.set_nats_server" : `the foreign server "${server}"`;
  return { kind: "wrong", violation: result.violation, from };
}

/** Options with the secret of the NATS user, the one that counts first. */
const credentials: readonly string[] = Object.values(authModes).flatMap((names) => names.at(-1) ?? []);

/** Statement that corrects the credentials where they are defined, for a definition that names a server. */
function correctionOf({ options, server, mapping, role }: Row): string {
  const mapped = server === null ? {} : (mapping ?? {});
  const option = credentials.find((name) => name in mapped || name in (options ?? {}));
  if (option?.endsWith("_path") === true) return `the file of the option ${option}`;
  if (server === null) {
    const added = option === undefined ? `"username": "…", "password": "…"` : `"${option}": "…"`;
    return `SELECT hawser.set_nats_server('{"host": "…", …, ${added}}')`;
  }
  const on = `SERVER ${pg.escapeIdentifier(server)} OPTIONS`;
  if (option === undefined)
    return `CREATE USER MAPPING FOR … ${on} (username '…', password '…'), for the login of \`hawser serve\``;
  if (option in mapped) return `ALTER USER MAPPING FOR ${pg.escapeIdentifier(role)} ${on} (SET ${option} '…')`;
  return `ALTER ${on} (SET ${option} '…')`;
}

const define =
  "CREATE SERVER nats_fdw_server FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (host '…', port '4222'), or SELECT hawser.set_nats_server('{\"host\": \"…\"}')";

/** Checks of the NATS server, in the order in which they run. */
export function natsServerChecks(facts: Facts): Check[] {
  return [
    faultCheck(facts, "secrets", "no secret is readable by every role", { needs: ["nats-from-sql"] }),
    catalogCheck("nats-server", () => definition(facts), { needs: ["nats-from-sql"], explainedBy: ["grants"] }),
  ];
}

async function definition(facts: Facts): Promise<Verdict> {
  const found = await natsDefinition(facts);
  switch (found.kind) {
    case "hidden":
      return {
        notChecked: "this login may not read the definition: run `hawser doctor` as the login of `hawser serve`",
      };
    case "partial":
      return {
        seen: "a server is defined",
        notChecked: `the user mapping for ${found.mappedFor} is part of the definition: run \`hawser doctor\` as the login of \`hawser serve\``,
      };
    case "none":
      // Another check reports missing functions.
      if (!(await hasFunctions(facts))) return { absent: true, seen: "no NATS server is defined" };
      if (await isUnused(facts)) return unused;
      return failed({ code: "nats_not_configured", what: "no NATS server is defined", remedy: define });
    case "several":
      return { findings: await facts.findings("nats-server") };
    case "wrong":
      return failed({
        code: "nats_not_configured",
        what: `the options of the NATS server (from ${found.from}) are invalid: ${found.violation.message}`,
        remedy: found.violation.hint,
      });
    case "complete":
      return {
        seen: `it is ${natsAddresses(found.options)
          .map(({ name }) => name)
          .join(", ")}`,
      };
  }
}

/** True if the SQL functions exist. Without them a NATS server has no use. */
async function hasFunctions(facts: Facts): Promise<boolean> {
  return (await facts.state()).functions.found.some(({ isOurs }) => isOurs);
}

/** True if NATS from SQL was never used: no gateway was ever started, and no function is bound. */
async function isUnused(facts: Facts): Promise<boolean> {
  const [gateways, handlers] = [await facts.gateways(), await facts.handlerCounts()];
  return gateways?.length === 0 && handlers?.subscriptions === 0 && handlers.responders === 0;
}

const unused: Verdict = {
  absent: true,
  findings: [
    {
      severity: "note",
      what: "NATS from SQL is installed but not used: no NATS server is defined, and no gateway runs",
      remedy: `${define}; then start \`hawser serve\``,
    },
  ],
};
