/**
 * Foreign data wrappers with their validator, and event triggers that track the definition of the NATS server.
 * Superusers run these functions implicitly with CREATE SERVER and ALTER SERVER. So the functions belong to superusers
 * and use no objects of other roles.
 */
import { connectionOptions, natsForeignDataSql } from "../../../generated/ts/nats-options/index.js";
import { notifyChannels } from "../../../generated/ts/rows/nats.js";
import { errorTable } from "../../foundation/errors/index.js";
import { newSchemaSql } from "../../jobs-and-peers/migrations/index.js";
import { runSchema } from "./binding-sql.js";
import {
  functionsOf,
  type InstalledObject,
  identifier,
  literal,
  literals,
  normalizePrivilegesSql,
  ownerDeclaration,
  pinnedPath,
  pinnedSettings,
  type RunQuery,
} from "./object.js";
import type { Fault, ForeignDataState, State } from "./state.js";

/** Interval at which the options of the server are read, in addition to notifications. */
export const optionsPollMs = 5_000;

/** Foreign data wrappers, which share one validator. */
const wrapperNames: readonly string[] = ["litmus_pgnats_fdw", "pgnats_fdw"];

/**
 * Schema of functions that superusers run implicitly: the validator of the wrappers, and the event trigger function. No
 * object in it may belong to another role.
 */
export const foreignDataSchema = "hawser_fdw";

/** Validator of the options of foreign servers. */
const validator = `${foreignDataSchema}.nats_fdw_validator`;

/** Function that the event triggers call. */
const eventTriggerFunction = `${foreignDataSchema}.follow_nats_ddl()`;

/** Event trigger that tracks the definition of the server. */
interface EventTrigger {
  readonly name: string;
  readonly event: "ddl_command_end" | "sql_drop";
  readonly tags: readonly string[];
}

const eventTriggers: readonly EventTrigger[] = [
  {
    name: "hawser_nats_server_follow",
    event: "ddl_command_end",
    tags: ["CREATE SERVER", "ALTER SERVER", "CREATE USER MAPPING", "ALTER USER MAPPING"],
  },
  {
    name: "hawser_nats_server_drop",
    event: "sql_drop",
    tags: [
      "DROP SERVER",
      "DROP USER MAPPING",
      "DROP FOREIGN DATA WRAPPER",
      "DROP OWNED",
      "DROP EXTENSION",
      "DROP FUNCTION",
      "DROP ROUTINE",
      "DROP SCHEMA",
    ],
  },
];

/** SQL expression: a role that is not a superuser and owns the schema or a function in it; null if there is none. */
const untrustedOwnerSql = `(
    SELECT pg_get_userbyid(min(o.owner)) FROM (
      SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = '${foreignDataSchema}'
      UNION ALL
      SELECT p.proowner FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = '${foreignDataSchema}'
    ) AS o (owner) WHERE o.owner NOT IN (SELECT s.oid FROM pg_roles AS s WHERE s.rolsuper))`;

/** Query: foreign servers of a wrapper with our validator. */
const ownServers = `
    SELECT s.oid, s.srvname FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    JOIN pg_proc AS p ON p.oid = w.fdwvalidator AND p.proname = 'nats_fdw_validator'
    JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = ${literal(foreignDataSchema)}`;

const eventTriggerFunctionSql = `CREATE OR REPLACE FUNCTION ${eventTriggerFunction}
RETURNS event_trigger
LANGUAGE plpgsql
${pinnedSettings}
AS $function$
DECLARE
  servers text[];
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    IF EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() AS o
      WHERE o.object_type = 'function' AND o.schema_name = ${literal(runSchema)}
    ) THEN
      PERFORM pg_notify(${literal(notifyChannels.natsHandler)}, '{}') WHERE pg_notification_queue_usage() < 0.9;
    END IF;
    -- The wrapper of a dropped server is no longer visible.
    IF NOT EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() AS o
      WHERE o.classid = 'pg_foreign_server'::regclass
        OR (o.classid = 'pg_user_mapping'::regclass AND o.address_args[1] IN (SELECT f.srvname FROM (${ownServers}) AS f))
    ) THEN
      RETURN;
    END IF;
  ELSIF EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    WHERE c.classid = 'pg_foreign_server'::regclass AND c.objid IN (SELECT f.oid FROM (${ownServers}) AS f)
  ) THEN
    servers := ARRAY(SELECT f.srvname FROM (${ownServers}) AS f ORDER BY f.oid);
    IF array_length(servers, 1) > 1 THEN
      RAISE EXCEPTION USING
        ERRCODE = ${literal(errorTable.invalid_argument.sqlstate)},
        MESSAGE = format('a database has one NATS server, and here %s are defined: %s', array_length(servers, 1), array_to_string(servers, ', ')),
        HINT = format('DROP SERVER %I CASCADE, or alter the one that is there.', servers[array_upper(servers, 1)]);
    END IF;
  ELSIF NOT EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    JOIN pg_user_mappings AS m ON c.classid = 'pg_user_mapping'::regclass AND m.umid = c.objid
    WHERE m.srvid IN (SELECT f.oid FROM (${ownServers}) AS f)
  ) THEN
    RETURN;
  END IF;
  -- Delivered at the commit: hawser serve then reads the definition again.
  PERFORM pg_notify(${literal(notifyChannels.natsServer)}, json_build_object('operation', 'update', 'id', 1)::text) WHERE pg_notification_queue_usage() < 0.9;
END
$function$;
COMMENT ON FUNCTION ${eventTriggerFunction} IS 'Notifies hawser serve of changed foreign servers and user mappings, and of dropped wrappers. Refuses a second NATS server.';
`;

const functionsSql = [natsForeignDataSql, eventTriggerFunctionSql].join("\n");

/** Functions of the schema, in the form that DROP FUNCTION expects. */
const foreignDataFunctions: readonly string[] = [...functionsSql.matchAll(/^COMMENT ON FUNCTION (.+?\)) IS /gm)].map(
  ([, signature]) => signature!,
);

/**
 * PL/pgSQL block that creates or replaces the schema and its functions. It does nothing if the role is not a superuser.
 */
const schemaSql = `DO $fdw$
DECLARE
  stranger name;
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
    RAISE NOTICE 'the schema ${foreignDataSchema} is left to superusers';
    RETURN;
  END IF;
  IF to_regnamespace(${literal(foreignDataSchema)}) IS NULL THEN
    EXECUTE $new$${newSchemaSql(foreignDataSchema)}$new$;
    COMMENT ON SCHEMA ${foreignDataSchema} IS 'Foreign data wrappers and event triggers of Hawser. Belongs to a superuser, because superusers run its functions.';
  END IF;
  stranger := ${untrustedOwnerSql};
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
      MESSAGE = format('the schema ${foreignDataSchema} or a function in it belongs to %I, who is no superuser', stranger);
  END IF;
  EXECUTE $new$${functionsSql}$new$;
  ${normalizePrivilegesSql(functionsOf(foreignDataSchema))}
  GRANT USAGE ON SCHEMA ${foreignDataSchema} TO PUBLIC;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${foreignDataSchema} TO PUBLIC;
END
$fdw$;`;

/**
 * Creates the wrappers for CREATE SERVER. A wrapper that was created beforehand without handler and validator gets
 * ours.
 */
const wrappersSql = `${pinnedPath}
${schemaSql}
DO $do$
DECLARE
  ${ownerDeclaration}
  wrapper text;
BEGIN
  FOREACH wrapper IN ARRAY ARRAY[${literals(wrapperNames)}] LOOP
    IF NOT EXISTS (SELECT FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = wrapper) THEN
      EXECUTE format('CREATE FOREIGN DATA WRAPPER %I NO HANDLER VALIDATOR ${validator}', wrapper);
      EXECUTE format('COMMENT ON FOREIGN DATA WRAPPER %I IS %L', wrapper, 'The NATS server that Hawser uses.');
    ELSIF EXISTS (SELECT FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = wrapper AND w.fdwvalidator = 0) THEN
      EXECUTE format('ALTER FOREIGN DATA WRAPPER %I VALIDATOR ${validator}', wrapper);
    END IF;
    IF NOT has_foreign_data_wrapper_privilege(owner, wrapper, 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', wrapper, owner);
    END IF;
  END LOOP;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE 'the foreign data wrappers are not ready: %', SQLERRM;
END
$do$;`;

/** Creates the event triggers. */
const triggersSql = `${pinnedPath}
DO $do$
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
    RAISE NOTICE 'event triggers are left to superusers';
    RETURN;
  END IF;
${eventTriggers.map(eventTriggerSql).join("\n")}
END
$do$;`;

function eventTriggerSql({ name, event, tags }: EventTrigger): string {
  const list = literals(tags);
  return `  IF NOT EXISTS (
    SELECT FROM pg_event_trigger AS t
    WHERE t.evtname = ${literal(name)} AND t.evtevent = ${literal(event)} AND t.evtfoid = ${literal(eventTriggerFunction)}::regprocedure
      AND t.evttags @> ARRAY[${list}] AND t.evttags <@ ARRAY[${list}]
  ) THEN
    DROP EVENT TRIGGER IF EXISTS ${name};
    CREATE EVENT TRIGGER ${name} ON ${event}
    WHEN TAG IN (${list})
    EXECUTE FUNCTION ${eventTriggerFunction};
  END IF;`;
}

const foundWrappersSql = `
  SELECT w.fdwname AS name, nullif(w.fdwvalidator, 0)::regproc::text AS validator, nullif(w.fdwhandler, 0)::regproc::text AS handler,
         coalesce(nullif(w.fdwvalidator, 0)::regproc::text = '${validator}' AND w.fdwhandler = 0, false) AS "isOurs"
    FROM pg_foreign_data_wrapper AS w WHERE w.fdwname IN (${literals(wrapperNames)}) ORDER BY w.fdwname`;

const foundTriggersSql = `
  SELECT t.evtname AS name, t.evtfoid::regprocedure::text AS calls, t.evtevent AS event, coalesce(t.evttags, '{}') AS tags,
         t.evtenabled <> 'D' AS enabled
    FROM pg_event_trigger AS t WHERE t.evtname IN (${literals(eventTriggers.map(({ name }) => name))}) ORDER BY t.evtname`;

const serversSql = `
  SELECT s.srvname AS name, w.fdwname AS wrapper,
         ARRAY(SELECT o.option_name FROM pg_options_to_table(s.srvoptions) AS o ORDER BY 1) AS options
    FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
   WHERE w.fdwname IN (${literals(wrapperNames)}) AND (w.fdwvalidator = 0 OR w.fdwvalidator::regproc::text = '${validator}')
   ORDER BY s.oid`;

const schemaStateSql = `
  SELECT to_regnamespace('${foreignDataSchema}') IS NOT NULL AND ${untrustedOwnerSql} IS NULL AS "hasSchema"`;

interface FoundTriggerRow {
  readonly name: string;
  readonly calls: string;
  readonly event: string;
  readonly tags: readonly string[];
  readonly enabled: boolean;
}

/** Inspects the wrappers, the event triggers and the foreign servers. */
export async function inspectForeignData(runQuery: RunQuery): Promise<ForeignDataState> {
  const [{ hasSchema }] = (await runQuery<{ hasSchema: boolean }>(schemaStateSql)) as [{ hasSchema: boolean }];
  return {
    hasSchema,
    wrappers: await runQuery<ForeignDataState["wrappers"][number]>(foundWrappersSql),
    eventTriggers: (await runQuery<FoundTriggerRow>(foundTriggersSql)).map(foundTrigger),
    servers: await runQuery<ForeignDataState["servers"][number]>(serversSql),
  };
}

function foundTrigger({ name, calls, event, tags, enabled }: FoundTriggerRow) {
  const wanted = eventTriggers.find((trigger) => trigger.name === name)!;
  const isOurs = calls === eventTriggerFunction;
  const sameTags = [...tags].sort().join() === [...wanted.tags].sort().join();
  return { name, enabled, isOurs, isCurrent: isOurs && event === wanted.event && sameTags };
}

const isOrAre = (names: readonly unknown[]) => (names.length === 1 ? "is" : "are");
const s = (names: readonly unknown[]) => (names.length === 1 ? "" : "s");

/** Remedy that needs a superuser. An untrusted owner becomes trusted first: superusers must not use its objects. */
function superuserRuns({ roles: { owner, ownerIsUntrusted } }: State): string {
  return `as a superuser: ${ownerIsUntrusted ? `GRANT hawser_owner TO ${identifier(owner!)}; ` : ""}run \`hawser init\``;
}

/** Foreign data wrappers, and the schema of functions that superusers run. */
export const foreignData: InstalledObject = {
  name: "foreign-data",
  what: "foreign data wrappers",
  ofNats: true,
  create: wrappersSql,
  conflicts: `
  SELECT 30 AS nth, 'name_occupied' AS code,
         format('the schema ${foreignDataSchema}, whose functions superusers run, or a function in it belongs to "%s", who is no superuser', ${untrustedOwnerSql}) AS what,
         'DROP SCHEMA ${foreignDataSchema} CASCADE' AS remedy
    FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolsuper AND ${untrustedOwnerSql} IS NOT NULL
  UNION ALL
  SELECT 31, 'name_occupied',
         format('the foreign data wrapper %s has the %s instead of ${validator} alone: it is another program''s', w.name,
                coalesce('validator ' || w.validator, 'handler ' || w.handler)),
         'rename or drop it'
    FROM (${foundWrappersSql}) AS w WHERE NOT w."isOurs" AND coalesce(w.validator, w.handler) IS NOT NULL`,
  faults: (state) => [...missingWrappers(state), ...openSecrets(state), ...excessServers(state)],
  inUse({ foreignData: { servers, wrappers } }) {
    const used = servers.filter(({ wrapper }) => wrappers.some(({ name, isOurs }) => isOurs && name === wrapper));
    if (used.length === 0) return undefined;
    const named = used.map(({ name, wrapper }) => `"${name}" (${wrapper})`).join(", ");
    const drops = used.map(({ name }) => `DROP SERVER ${identifier(name)} CASCADE`).join("; ");
    return `foreign servers still say which NATS server is used: ${named}. ${drops}`;
  },
  removals: ({ foreignData: { wrappers, hasSchema } }) => [
    ...wrappers
      .filter(({ isOurs }) => isOurs)
      .map(({ name }) => ({
        what: `the foreign data wrapper ${name}`,
        sql: `DROP FOREIGN DATA WRAPPER IF EXISTS ${name};`,
      })),
    ...(hasSchema
      ? [
          {
            what: `the schema ${foreignDataSchema}`,
            sql: `DROP FUNCTION IF EXISTS ${foreignDataFunctions.join(", ")};\n  DROP SCHEMA ${foreignDataSchema};`,
          },
        ]
      : []),
  ],
};

function missingWrappers(state: State): Fault[] {
  const { wrappers } = state.foreignData;
  const missing = wrapperNames.filter((name) => !wrappers.some((wrapper) => wrapper.name === name && wrapper.isOurs));
  if (missing.length === 0) return [];
  return [
    {
      kind: "missing",
      what: `the foreign data wrapper${s(missing)} ${missing.join(" and ")} ${isOrAre(missing)} missing or without ${validator}`,
      refused: "make them: only superusers may",
      meaning: "CREATE SERVER cannot say which NATS server is used; SELECT hawser.set_nats_server('{…}') can",
      remedy: superuserRuns(state),
      repairable: state.roles.superuser,
      severity: "note",
    },
  ];
}

/** Options with a file variant (`_path`): their values are secret. A fault never contains a value. */
const secretOptions: readonly string[] = connectionOptions.filter((option) =>
  (connectionOptions as readonly string[]).includes(`${option}_path`),
);

function openSecrets({ foreignData: { servers } }: State): Fault[] {
  return servers.flatMap(({ name, options }): Fault[] => {
    const open = options.filter((option) => secretOptions.includes(option));
    if (open.length === 0) return [];
    const server = identifier(name);
    return [
      {
        kind: "risk",
        what: `every role can read the option ${open.join(" and ")} of the foreign server "${name}"`,
        remedy:
          `CREATE USER MAPPING FOR the login of \`hawser serve\` SERVER ${server} OPTIONS (${open.map((option) => `${option} '…'`).join(", ")}), ` +
          `or name a file with ${open.map((option) => `${option}_path`).join(" and ")}; ` +
          `ALTER SERVER ${server} OPTIONS (${open.map((option) => `DROP ${option}`).join(", ")}); then change the secret, which others may know`,
        check: "secrets",
      },
    ];
  });
}

function excessServers({ foreignData: { servers } }: State): Fault[] {
  if (servers.length < 2) return [];
  const names = servers.map(({ name }) => `"${name}"`).join(", ");
  return [
    {
      kind: "risk",
      what: `a database has one NATS server, and here ${servers.length} are defined: ${names}`,
      remedy: `DROP SERVER ${identifier(servers.at(-1)!.name)} CASCADE, or another of them`,
      severity: "error",
      code: "nats_not_configured",
      check: "nats-server",
    },
  ];
}

export const eventTriggersObject: InstalledObject = {
  name: "event-triggers",
  what: "event triggers",
  ofNats: true,
  create: triggersSql,
  conflicts: `
  SELECT 35 AS nth, 'name_occupied' AS code,
         format('the event trigger %s calls %s instead of ${eventTriggerFunction}', t.name, t.calls) AS what, 'rename or drop it' AS remedy
    FROM (${foundTriggersSql}) AS t WHERE t.calls <> '${eventTriggerFunction}'`,
  faults(state) {
    const { eventTriggers: found } = state.foreignData;
    const missing = eventTriggers
      .map(({ name }) => name)
      .filter((name) => !found.some((one) => one.name === name && one.isCurrent));
    const seconds = optionsPollMs / 1000;
    const disabled = found.filter(({ isOurs, enabled }) => isOurs && !enabled);
    return [
      ...disabled.map(
        ({ name }): Fault => ({
          kind: "risk",
          what: `the event trigger ${name} is disabled: changes of the foreign server are seen within ${seconds} seconds instead of at once`,
          remedy: `as a superuser: ALTER EVENT TRIGGER ${name} ENABLE`,
          check: "foreign-data",
        }),
      ),
      ...(missing.length === 0
        ? []
        : [
            {
              kind: "missing" as const,
              what: `the event trigger${s(missing)} ${missing.join(" and ")} ${isOrAre(missing)} missing`,
              refused: "make them: only superusers may",
              meaning: `\`hawser serve\` notices changes of the foreign server within ${seconds} seconds instead of at once, and a second server is not refused when it is made`,
              remedy: superuserRuns(state),
              repairable: state.roles.superuser,
              severity: "note" as const,
              check: "foreign-data",
            },
          ]),
    ];
  },
  removals: ({ foreignData: { eventTriggers: found } }) =>
    found
      .filter(({ isOurs }) => isOurs)
      .map(({ name }) => ({ what: `the event trigger ${name}`, sql: `DROP EVENT TRIGGER IF EXISTS ${name};` })),
};
