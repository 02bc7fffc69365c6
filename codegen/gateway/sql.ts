import { readFileSync } from "node:fs";
import type { GatewayFamily } from "../model/gateway-functions.js";
import type { roles } from "../model/roles.js";
import type { SpecFile } from "../model/spec.js";
import { sqlConstants } from "../sql/body.js";
import { dropDefaultPrivileges, notePresent } from "../sql/default-privileges.js";
import { createRole, doBlock, whereRoleExists } from "../sql/grants.js";
import { sqlString } from "../sql/literal.js";
import { gatewayFunctionStatements, gatewaySignature } from "./sql-function.js";

/** The role that may call the functions. */
const callerRole = "hawser_nats" satisfies keyof typeof roles;

/** The functions of some files: SQL with placeholders for the schemas, and what to know of it. */
export interface GatewaySql {
  /** Makes or replaces the functions. `@extschema@` is their schema, `@dblink@` that of dblink. */
  readonly functions: string;
  /** Takes them from PUBLIC and gives them to the role that may call them. */
  readonly grants: string;
  /** All functions, as DROP names them. */
  readonly signatures: readonly string[];
}

export function gatewaySql(files: readonly SpecFile[], families: readonly GatewayFamily[]): GatewaySql {
  const values = { constants: sqlConstants(files), version: packageVersion() };
  const all = families.flatMap((family) =>
    family.variants.flatMap((variant) =>
      variant.names.map((name) => ({ family, signature: gatewaySignature(family, variant, name) })),
    ),
  );
  const objects = functionObjects(all.map(({ signature }) => signature));
  return {
    functions: [
      notePresent(objects),
      ...families.flatMap((family) =>
        family.variants.flatMap((variant) => gatewayFunctionStatements(family, variant, values)),
      ),
      dropDefaultPrivileges(objects),
    ].join("\n"),
    grants: [
      ...all.map(({ signature }) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
      "",
      createRole(callerRole),
      whereRoleExists(
        callerRole,
        all
          .filter(({ family }) => !family.internal)
          .map(({ signature }) => `GRANT EXECUTE ON FUNCTION ${signature} TO ${callerRole};`),
      ),
      giveToOwner(all.map(({ signature }) => signature)),
    ].join("\n"),
    signatures: all.map(({ signature }) => signature),
  };
}

function functionObjects(signatures: readonly string[]): string[] {
  return [
    "SELECT p.oid, 'FUNCTION ' || p.oid::pg_catalog.regprocedure AS object, 'f'::\"char\" AS type, p.proowner AS owner, p.proacl AS acl",
    "FROM pg_catalog.pg_proc AS p WHERE p.oid IN (",
    "  SELECT pg_catalog.to_regprocedure(s.signature)::oid FROM (VALUES",
    ...signatures.map((signature, nth) => `    (${sqlString(signature)})${nth < signatures.length - 1 ? "," : ""}`),
    "  ) AS s (signature)",
    ")",
  ];
}

/** The owner of the schema `hawser` owns them too: what a function reads there, it reads as its owner. */
function giveToOwner(signatures: readonly string[]): string {
  return doBlock([
    "DECLARE",
    "  owner CONSTANT text := (",
    "    SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'hawser');",
    "  signature text;",
    "BEGIN",
    "  FOREACH signature IN ARRAY ARRAY[",
    signatures.map((signature) => `    ${sqlString(signature)}`).join(",\n"),
    "  ] LOOP",
    "    EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', signature, owner);",
    "  END LOOP;",
    "EXCEPTION",
    "  WHEN insufficient_privilege THEN",
    "    RAISE NOTICE '% may not give the functions of NATS to % and goes on owning them', current_user, owner;",
    "END",
  ]);
}

/** Relative to the working directory, which buf makes the root of the project. */
function packageVersion(): string {
  return (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version;
}
