/**
 * The layers of `src/` and which of them may import which.
 */

/** Top first. A layer may import itself and every tier below; two layers of one tier may not import each other. */
export const tiers: readonly (readonly string[])[] = [
  ["cli", "buf-plugin", "testing"],
  ["serve", "doctor", "connect"],
  ["dev", "bridge", "gateway", "peer"],
  ["installation", "outbox", "typed-nats"],
  ["nats", "store", "transport"],
  ["postgres", "channel", "wire", "typed"],
  ["errors", "files", "runtime"],
  ["generated"],
];

/** The layer a file belongs to, by its path from the root of the project; undefined if it is part of none. */
export function layerOf(path: string): string | undefined {
  const [top, folder] = path.split("/");
  if (top === "generated") return "generated";
  return top === "src" ? folder : undefined;
}

/** Why a file of one path may not import the other; undefined if it may. */
export function whyForbidden(importer: string, imported: string): string | undefined {
  const [from, to] = [layerOf(importer), layerOf(imported)];
  if (from === undefined) return undefined;
  if (to === undefined) return `${from} is shipped, and ${imported} is not`;
  const [fromTier, toTier] = [tierOf(from), tierOf(to)];
  if (fromTier === undefined) return `src/${from} is no layer; the layers are ${tiers.flat().join(", ")}`;
  if (toTier === undefined) return `src/${to} is no layer; the layers are ${tiers.flat().join(", ")}`;
  if (from === to || toTier > fromTier) return undefined;
  return toTier === fromTier
    ? `${from} and ${to} are of one tier, and know nothing of each other`
    : `${to} is above ${from}, and imports point down`;
}

/**
 * Why a file of `src/` may not import the other past the `index.ts` of a folder; undefined if it may. A folder with an
 * `index.ts` is imported from outside through it alone; of several such folders around a file the outermost counts.
 *
 * @param isFile whether there is a file of that path from the root of the project
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
    return `${folder} is imported from outside through its index.ts alone`;
  }
  return undefined;
}

function tierOf(layer: string): number | undefined {
  const index = tiers.findIndex((tier) => tier.includes(layer));
  return index === -1 ? undefined : index;
}
