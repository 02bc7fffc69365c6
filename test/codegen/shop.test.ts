/**
 * What the plugins make of the shop in `protos/`, which has one of everything that a plugin can meet, as one reads it: the
 * pages as they are kept in `golden/`, and what the types in TypeScript say. What it does is for sql.test.ts, till.test.ts,
 * rows.test.ts, frame-rules.test.ts and settings.test.ts; that it compiles for compiles.slow.test.ts.
 *
 * After a wanted change rewrite the pages with `npx vitest run test/codegen/shop.test.ts --update` and read the diff.
 */
import { beforeAll, expect, it } from "vitest";
import { type Shop, shop } from "./support/shop.js";

let made: Shop;
beforeAll(async () => {
  made = await shop();
});

it("has pages that say all that the spec says", async () => {
  const pages = Object.entries(made.files).filter(([path]) => path.startsWith("docs/"));
  expect(pages.map(([path]) => path).sort()).toEqual([
    "docs/catalog.md",
    "docs/errors.md",
    "docs/frames.md",
    "docs/nats-functions/nats-functions.md",
    "docs/settings.md",
  ]);
  for (const [path, content] of pages) {
    await expect(content).toMatchFileSnapshot(`golden/${path.slice(path.lastIndexOf("/") + 1)}`);
  }
});

it.each<[path: string, text: string]>([
  [
    "ts/rows/shop.ts",
    `/** A row of hawser.orders. The orders, "open" and closed. It's a test of \`quotes\` and \${braces}, too: *\\/ done. */
export interface OrderRow {
  /** The shop. */
  shop: string;
  /** The number within the shop. */
  number: number;
  /** A number over all shops. */
  reference: bigint;
  /** Where it stands. */
  state: string;
  /** In cents. */
  total: bigint;
  paid: bigint;
  /** What was bought. */
  items: string[];
  /** Anything else. */
  note: unknown;
  /** A digest. */
  digest: Uint8Array;
  /** When. */
  placed_at: Date;
  gift: boolean;
  /** When it was paid; NULL: not yet. */
  paid_at: Date | null;
  /** Always total - paid. */
  open_amount: bigint;
  /** From 1, best, to 9. */
  priority: number;
}
`,
  ],
  [
    "ts/rows/shop.ts",
    `/** Arguments of hawser.place_order. */
export interface PlaceOrderArguments {
  /** The shop. */
  shop: string;
  total: bigint;
  references: readonly bigint[];
  digest: Uint8Array | null;
  pictures: readonly Uint8Array[];
  note: string | null;
}
`,
  ],
  [
    "ts/rows/shop.ts",
    `/** One row of hawser.open_orders. */
export interface OpenOrdersResult {
  shop: string;
  reference: bigint | null;
  allReferences: bigint[];
}
`,
  ],
  [
    "ts/settings/shop.ts",
    `  /**
   * In which order.
   *
   * Default: "time". Range: one of "time", "size".
   */
  readonly sortBy: string;
  /** Default: true. */
  readonly open: boolean;
  /**
   * Degrees; absent: no heating.
   *
   * No default. Range: -10 to 30.
   */
  readonly heating: number | undefined;
`,
  ],
  [
    "ts/settings/shop.ts",
    `/** Shop constants. What is the same in every shop. */
export const shopConstants = {
  /**
   * Before each number.
   *
   * Value: "#".
   */
  numberPrefix: "#",
  /**
   * How long a cart is kept.
   *
   * Value: 5000 ms.
   */
  cartMs: 5000,
} as const;
`,
  ],
  [
    "ts/rules/shop/parcels.ts",
    "/** Checks `Label.text`. Limits: must be digits, with or without two letters and - before. */\n",
  ],
  [
    "ts/rules/shop/orders.ts",
    "/** Checks `ShipRequest` against the rules of the spec. */\nexport function validateShipRequest(message: ShipRequest)",
  ],
  ["ts/rules/shop/parcels.ts", 'import { validateShipRequest } from "../shop/orders.js";\n'],
  [
    "ts/nats-functions/methods.ts",
    `export interface GetBillResponse {
  /** What it is. */
  readonly thing: string;
  /** How many. */
  readonly pieces: number;
  /** In cents. */
  readonly unitPrice: bigint;
  /** In cents; NULL: none. */
  readonly rebate?: bigint | undefined;
  /** A picture. */
  readonly picture?: Uint8Array | undefined;
  /** A gift. */
  readonly gift: boolean;
  /** Anything else. */
  readonly notes?: JsonObject | undefined;
  /** The lines. */
  readonly lines: readonly unknown[];
}
`,
  ],
  [
    "ts/nats-functions/methods.ts",
    `  /** Reads a line of the bill; NULL if there is none. */
  getLine(request: GetLineRequest, call: Call): Answer<Uint8Array | undefined>;

  /** The picture of a thing. */
  getPicture(request: GetPictureRequest, call: Call): Answer<Uint8Array>;

  /** Who is at the till. */
  getCashier(request: GetCashierRequest, call: Call): Answer<string | undefined>;

  /** Changes the till. */
  count(request: CountRequest, call: Call): Answer<bigint | undefined>;

  /** The whole bill. */
  getBill(request: GetBillRequest, call: Call): Answer<readonly GetBillResponse[]>;

  /** The state of the till. */
  getState(request: GetStateRequest, call: Call): Answer<GetStateResponse>;

  /** Opens the drawer. */
  openDrawer(request: OpenDrawerRequest, call: Call): Answer<void>;
`,
  ],
  [
    "ts/nats-functions/client.ts",
    `  readonly patience?: number | null | undefined;
  /** A picture. */
  readonly pictureFile?: Uint8Array | null | undefined;
  /** Anything else. */
  readonly notes?: { readonly [name: string]: unknown } | null | undefined;
}
`,
  ],
  [
    "ts/nats-functions/client.ts",
    `  readonly rebate: bigint | null;
  /** A picture. */
  readonly picture: Uint8Array | null;
  /** A gift. */
  readonly gift: boolean;
  /** Anything else. */
  readonly notes: { readonly [name: string]: unknown } | null;
  /** The lines. */
  readonly lines: readonly unknown[];
}
`,
  ],
  ["ts/nats-functions/client.ts", "async tillCount(): Promise<bigint | null> {"],
  ["ts/nats-functions/client.ts", "async tillBill(args: GetBillArguments = {}): Promise<BillRow[]> {"],
])("has in %s (case %#) what the spec says", (path, text) => {
  expect(made.files[path]).toContain(text);
});

it("gives the limits of fields, columns and settings as values", () => {
  expect(made.parcelRules["limits"]).toEqual({
    Parcel: {
      address: { minBytes: 2, maxBytes: 8 },
      weight: { min: 1n, max: 1000n },
      coldest: { min: -40 },
      size: { min: 1 },
      furtherLabels: { maxItems: 2 },
      cash: { min: 1n },
      voucher: { minBytes: 4, maxBytes: 4 },
    },
  });
  expect(made.orderRules["limits"].Order).toEqual({
    shop: { minBytes: 1, maxBytes: 10 },
    number: { min: 0 },
    total: { min: 0n },
    paid: { min: -5n, max: 9007199254740991n },
    items: { maxItems: 3 },
    digest: { maxBytes: 4 },
    priority: { min: 1, max: 9 },
  });
  expect(made.settings["shopSettingsRanges"]).toEqual({
    maxWaiting: { kind: "number", min: 0, max: 9007199254740991, unit: "orders" },
    greeting: { kind: "string", maxBytes: 40 },
    sortBy: { kind: "string", values: ["time", "size"] },
    open: { kind: "boolean" },
    heating: { kind: "number", min: -10, max: 30, unit: "°C" },
  });
});

it("names the shop's one table, its columns and its channel", () => {
  const { tables, columns, notifyChannels } = made.rows;
  expect({ tables, notifyChannels }).toEqual({
    tables: { order: "hawser.orders" },
    notifyChannels: { order: "shop_orders" },
  });
  expect(columns.order.join(" ")).toBe(
    "shop number reference state total paid items note digest placed_at gift paid_at open_amount priority",
  );
});

it("checks the columns of a row in TypeScript as in Postgres", () => {
  const order = {
    shop: "s",
    number: 1,
    reference: 1n,
    state: "open",
    total: 0n,
    paid: 0n,
    items: [],
    digest: new Uint8Array(4),
    gift: true,
    open_amount: 0n,
    priority: 1,
  };
  const { validateOrderRow, columnChecks } = made.orderRules;
  expect(validateOrderRow(order)).toBeUndefined();
  const bad = {
    shop: "it's",
    number: -1,
    reference: 2n ** 63n,
    state: "paid",
    total: -1n,
    paid: -6n,
    items: ["", "", "", ""],
    digest: new Uint8Array(5),
    open_amount: 1,
    priority: 10,
  };
  for (const [column, value] of Object.entries(bad)) {
    expect(validateOrderRow({ ...order, [column]: value })?.path, column).toBe(column);
    expect(columnChecks.orders[column](value)?.path, column).toBe(column);
  }
  expect(Object.keys(columnChecks.orders)).toEqual(Object.keys(bad));
});
