import { readFileSync } from "node:fs";
import type { GatewayFamily } from "../model/gateway-functions.js";
import type { roles } from "../model/roles.js";
import type { SpecFile } from "../model/spec.js";
import { sqlConstants } from "../sql/body.js";
import { dropDefaultPrivileges, recordPresentObjects } from "../sql/default-privileges.js";
import { createRole, giveFunctionsToOwner, whereRoleExists } from "../sql/grants.js";
import { sqlString } from "../sql/literal.js";
import { type GatewayFunction, gatewayFunctions, gatewaySignature, schemaPlaceholder } from "./sql-function.js";

/** Role that may call the functions. */
const callerRole = "hawser_nats" satisfies keyof typeof roles;

/** SQL of the gateway functions of some files, with placeholders: `@extschema@` and `@dblink@`, the schema of dblink. */
export interface GatewaySql {
  /** Statements before those of the functions. */
  readonly before: string;
  readonly functions: readonly GatewayFunction[];
  /** Statements after those of the functions. */
  readonly after: string;
  /** Revokes the functions from PUBLIC and grants them to {@link callerRole}. */
  readonly grants: string;
}

export function gatewaySql(files: readonly SpecFile[], families: readonly GatewayFamily[]): GatewaySql {
  const values = { constants: sqlConstants(files), version: packageVersion() };
  const functions = families.flatMap((family) =>
    family.variants.flatMap((variant) => gatewayFunctions(family, variant, values)),
  );
  const called = functions.filter(({ schema }) => schema === schemaPlaceholder);
  const signatures = functions.map(gatewaySignature);
  const objects = functionObjects(signatures);
  return {
    before: recordPresentObjects(objects),
    functions,
    after: dropDefaultPrivileges(objects),
    grants: [
      ...signatures.map((signature) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
      "",
      createRole(callerRole),
      whereRoleExists(
        callerRole,
        called.map((fn) => `GRANT EXECUTE ON FUNCTION ${gatewaySignature(fn)} TO ${callerRole};`),
      ),
      giveFunctionsToOwner(signatures, "the functions of NATS"),
    ].join("\n"),
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
