/** Layers of `src/`, and the imports that they may have. */

/**
 * Tiers of layers, top first. A layer may import itself and every tier below; two layers of one tier may not import
 * each other.
 */
const tiers: readonly (readonly string[])[] = [
  ["cli", "buf-plugin", "testing"],
  ["page", "client"],
  ["console"],
  ["serve", "doctor", "connect", "otel"],
  ["dev", "bridge", "gateway", "peer"],
  ["enqueue", "peer-store"],
  ["operate"],
  ["installation", "outbox"],
  ["migrations"],
  ["nats", "store", "transport"],
  ["postgres", "channel", "wire", "typed", "monitor", "tls"],
  ["sql-clients"],
  ["errors", "runtime"],
  ["generated"],
];

/** Layer of a file, by its path from the root of the project; undefined if it has none. */
function layerOf(path: string): string | undefined {
  const [top, folder] = path.split("/");
  if (top === "generated") return "generated";
  return top === "src" ? folder : undefined;
}

/** Reason why `importer` may not import `imported`; undefined if it may. */
export function whyForbidden(importer: string, imported: string): string | undefined {
  const [from, to] = [layerOf(importer), layerOf(imported)];
  if (from === undefined) return undefined;
  if (to === undefined) return `${from} is shipped, and ${imported} is not`;
  const [fromTier, toTier] = [tierOf(from), tierOf(to)];
  if (fromTier === undefined) return `src/${from} is not a layer; the layers are ${tiers.flat().join(", ")}`;
  if (toTier === undefined) return `src/${to} is not a layer; the layers are ${tiers.flat().join(", ")}`;
  if (from === to || toTier > fromTier) return undefined;
  return toTier === fromTier
    ? `${from} and ${to} are in the same tier, and may not import each other`
    : `${to} is above ${from}, and imports point down`;
}

/**
 * Reason why a file of `src/` may not bypass the `index.ts` of a folder; undefined if it may. A folder with an
 * `index.ts` is imported from outside only through it; of several such folders around a file, the outermost counts.
 *
 * @param isFile tests whether a file exists at a path from the root of the project
 */
export function whyPastIndex(
  importer: string,
  imported: string,
  isFile: (path: string) => boolean,
): string | undefined {
  if (!importer.startsWith("src/") || !imported.startsWith("src/")) return undefined;
  const parts = imported.split("/");
  for (let depth = 2; depth < parts.length; depth++) {
    const folder = parts.slice(0, depth).join("/");
    if (importer.startsWith(`${folder}/`) || !isFile(`${folder}/index.ts`)) continue;
    if (imported === `${folder}/index.js`) return undefined;
    // What a layer has for tests of users alone.
    if (importer.startsWith("src/development/testing/") && imported === `${folder}/testing.js`) return undefined;
    return `${folder} may be imported from outside only through its index.ts`;
  }
  return undefined;
}

function tierOf(layer: string): number | undefined {
  const index = tiers.findIndex((tier) => tier.includes(layer));
  return index === -1 ? undefined : index;
}
