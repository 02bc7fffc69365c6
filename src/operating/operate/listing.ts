/** Lists for operators: a filter, an order and pages, in one statement. */
import { invalidArgument } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Part of a list. */
export interface Listing {
  /** Only rows with this text in one of their names, whatever the case of ASCII letters. Default: all. */
  readonly filter?: string | undefined;
  /** Maximum number of rows. Default: all. */
  readonly limit?: number | undefined;
  /** Number of rows to leave out before the first one. Default: 0. */
  readonly offset?: number | undefined;
  /** Column by which the rows are sorted, one of the list's. Default: the order of the list. */
  readonly sort?: string | undefined;
  /** True for the greatest first, false for the least. Rows without a value come last. Default: false. */
  readonly isDescending?: boolean | undefined;
}

/** Reads a part of a list. @throws HawserError as {@link Database.query} */
export function listed<Row extends object>(
  database: Database,
  action: string,
  list: {
    /** Query of all rows. */
    readonly rows: string;
    readonly values?: readonly unknown[];
    /** Columns with the names among which the filter searches, of the alias `l`. */
    readonly names: readonly string[];
    /** Order of the rows, of the alias `l`. */
    readonly order: string;
    /** Expressions by which the rows can be sorted, of the alias `l`, by the name of each. */
    readonly sorts?: Readonly<Record<string, string>>;
  },
  { filter = "", limit, offset = 0, sort, isDescending = false }: Listing,
): Promise<Row[]> {
  const { rows, values = [], names, sorts = {} } = list;
  const by = sort === undefined ? undefined : Object.entries(sorts).find(([name]) => name === sort)?.[1];
  if (sort !== undefined && by === undefined) {
    const known = Object.keys(sorts).join(", ");
    throw invalidArgument(`sort "${sort.slice(0, 60)}": this list is sorted by ${known === "" ? "none" : known}`);
  }
  const order = by === undefined ? list.order : `${by} ${isDescending ? "DESC" : "ASC"} NULLS LAST, ${list.order}`;
  const [filterAt, limitAt, offsetAt] = [1, 2, 3].map((nth) => `$${values.length + nth}`);
  const text = `
    SELECT * FROM (${rows}) AS l
     WHERE ${filterAt}::text = ''
        OR position(lower(${filterAt}::text COLLATE "C") IN lower(concat_ws(' ', ${names.join(", ")}) COLLATE "C")) > 0
     ORDER BY ${order} LIMIT ${limitAt}::integer OFFSET ${offsetAt}::integer`;
  return database.query<Row>(action, { text, values: [...values, filter, limit ?? null, offset] });
}
