/**
 * Which of the SQL functions that a database has are those of this program.
 */
import { type FunctionPlaces, functionsSql, publicFunctions } from "../../store/nats/function-text.js";
import type { FoundFunction } from "../../store/nats/inspect.js";

/** The function through which all others reach the gateway. */
export const gatewayCallSignature = "hawser.gateway_call(text)";

/** By their signatures. */
export interface FunctionDifferences {
  readonly missing: readonly string[];
  readonly outdated: readonly string[];
}

/** @param gatewayCall the body of hawser.gateway_call; undefined if there is none */
export function compareFunctions(
  found: readonly FoundFunction[],
  gatewayCall: string | undefined,
  places: FunctionPlaces,
): FunctionDifferences {
  const present = new Map(
    found.filter((fn) => fn.isOurs && fn.schema === places.schema).map((fn) => [`${fn.name}(${fn.types})`, fn]),
  );
  const missing: string[] = [];
  const outdated: string[] = [];
  for (const { name, types, body, result } of publicFunctions(places)) {
    const signature = `${name}(${types})`;
    const one = present.get(signature);
    if (one === undefined) missing.push(signature);
    else if (one.body !== body || one.result !== result) outdated.push(signature);
  }
  if (gatewayCall === undefined) missing.push(gatewayCallSignature);
  else if (!functionsSql(places).includes(`AS $function$${gatewayCall}$function$;`))
    outdated.push(gatewayCallSignature);
  return { missing, outdated };
}

/** The version in the body of litmus_pgnats_version. */
export function versionIn(body: string): string | undefined {
  return /'(\d[^']*)'::text/.exec(body)?.[1];
}
