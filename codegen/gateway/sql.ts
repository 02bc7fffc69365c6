import { readFileSync } from "node:fs";
import type { GatewayFamily } from "../model/gateway-functions.js";
import type { roles } from "../model/roles.js";
import type { SpecFile } from "../model/spec.js";
import { sqlConstants } from "../sql/body.js";
import { dropDefaultPrivileges, recordPresentObjects } from "../sql/default-privileges.js";
import { createRole, giveFunctionsToOwner, whereRoleExists } from "../sql/grants.js";
import { sqlString } from "../sql/literal.js";
import { gatewayFunctionStatements, gatewaySignature } from "./sql-function.js";

/** Role that may call the functions. */
const callerRole = "hawser_nats" satisfies keyof typeof roles;

/** SQL of the gateway functions of some files, with placeholders for schemas. */
export interface GatewaySql {
  /** Creates or replaces the functions. `@extschema@` is their schema, `@dblink@` the schema of dblink. */
  readonly functions: string;
  /** Revokes the functions from PUBLIC and grants them to {@link callerRole}. */
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
      recordPresentObjects(objects),
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
      giveFunctionsToOwner(
        all.map(({ signature }) => signature),
        "the functions of NATS",
      ),
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

/** Version of the package. The path is relative to the working directory: buf runs plugins in the root of the project. */
function packageVersion(): string {
  return (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version;
}
