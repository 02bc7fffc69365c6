/** Wings and rooms of `src/`, and the imports that they may have. */

/** Rooms by wing: `src/` has a folder for each wing, which has one for each of its rooms. A room may have an inner one, with a tier of its own. */
const wings: Readonly<Record<string, readonly string[]>> = {
  "jobs-and-peers": [
    "peer",
    "worker",
    "queue/worker",
    "handlers",
    "handlers/limits",
    "handlers/transactions",
    "peer-store",
    "queue",
    "migrations",
    "store",
    "transport",
    "channel",
    "wire",
  ],
  nats: ["client", "serve", "bridge", "gateway", "outbox", "connections"],
  protobuf: ["buf-plugin", "connect", "typed"],
  operating: ["cli", "page", "console", "doctor", "otel", "operate", "installation"],
  development: ["testing", "dev"],
  foundation: ["postgres", "monitor", "tls", "sql-clients", "payloads", "errors", "runtime"],
};

/** Wings whose rooms may not import from the other wing, by wing. */
const closedTo: Readonly<Record<string, string>> = { "jobs-and-peers": "nats" };

/**
 * Tiers of rooms, top first. A room may import itself and every tier below; two rooms of one tier may not import
 * each other.
 */
const tiers: readonly (readonly string[])[] = [
  ["cli", "buf-plugin", "testing"],
  ["page", "client"],
  ["console"],
  ["serve", "doctor", "connect", "otel"],
  ["dev", "bridge", "gateway", "peer"],
  ["worker"],
  ["queue/worker"],
  ["handlers"],
  ["peer-store"],
  ["queue"],
  ["operate"],
  ["installation", "outbox"],
  ["migrations", "handlers/transactions"],
  ["connections", "store", "transport"],
  ["postgres", "channel", "wire", "typed", "monitor", "tls"],
  ["sql-clients", "payloads", "handlers/limits"],
  ["errors", "runtime"],
  ["generated"],
];

/** Room of a file, by its path from the root of the project; undefined if it has none. */
function roomOf(path: string): string | undefined {
  const [top, wing, room, inner] = path.split("/");
  if (top === "generated") return "generated";
  if (top !== "src" || room === undefined) return undefined;
  return [`${room}/${inner}`, room].find((name) => wings[wing!]?.includes(name));
}

function wingOf(path: string): string | undefined {
  return path.split("/")[1];
}

/** Reason why a file has no place; undefined if it has one. */
export function whyNoRoom(path: string): string | undefined {
  if (roomOf(path) !== undefined) return undefined;
  const rooms = Object.entries(wings).map(([wing, names]) => `${wing} (${names.join(", ")})`);
  return `is in no room of a wing; the wings are ${rooms.join("; ")}`;
}

/** Reason why `importer` may not import `imported`; undefined if it may. Says nothing of files that have no room. */
export function whyForbidden(importer: string, imported: string): string | undefined {
  const [from, to] = [roomOf(importer), roomOf(imported)];
  if (from === undefined) return undefined;
  if (to === undefined) return imported.startsWith("src/") ? undefined : `${from} is shipped, and ${imported} is not`;
  if (imported.startsWith("src/") && closedTo[wingOf(importer)!] === wingOf(imported))
    return `nothing of ${wingOf(importer)} imports from ${wingOf(imported)}`;
  const [fromTier, toTier] = [tierOf(from), tierOf(to)];
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
    // What a room has for tests of users alone.
    if (importer.startsWith("src/development/testing/") && imported === `${folder}/testing.js`) return undefined;
    return `${folder} may be imported from outside only through its index.ts`;
  }
  return undefined;
}

/** Folders of the wings, from the root of the project. */
export const wingFolders: readonly string[] = Object.keys(wings).map((wing) => `src/${wing}`);

function tierOf(room: string): number {
  return tiers.findIndex((tier) => tier.includes(room));
}
