/** Random messages of any schema whose fields SQL has, as protobuf-es holds them, with what SQL keeps of their times. */
import { create, type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";

/** Text as Postgres has it: no NUL, and no half of a surrogate pair. */
const text = fc.string({ unit: "binary", maxLength: 40 }).map((value) => value.replaceAll("\0", ""));
const bytes = fc.uint8Array({ maxLength: 300 });
const int32 = fc.oneof(fc.constantFrom(0, 1, -1, 127, 128, -(2 ** 31), 2 ** 31 - 1), fc.integer());
const uint32 = fc.oneof(fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1), fc.nat(2 ** 32 - 1));
const int64 = fc.oneof(
  fc.constantFrom(0n, -1n, -(2n ** 63n), 2n ** 63n - 1n),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
);
const uint64 = fc.oneof(fc.constantFrom(0n, 2n ** 63n, 2n ** 64n - 1n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));

const scalars: Readonly<Record<ScalarType, fc.Arbitrary<unknown>>> = {
  [ScalarType.DOUBLE]: fc.oneof(fc.double(), fc.constantFrom(-0, 5e-324, -5e-324, 1.7976931348623157e308)),
  [ScalarType.FLOAT]: fc.oneof(fc.float(), fc.constantFrom(-0, 2 ** -149, 2 ** 127)),
  [ScalarType.INT32]: int32,
  [ScalarType.SINT32]: int32,
  [ScalarType.SFIXED32]: int32,
  [ScalarType.UINT32]: uint32,
  [ScalarType.FIXED32]: uint32,
  [ScalarType.INT64]: int64,
  [ScalarType.SINT64]: int64,
  [ScalarType.SFIXED64]: int64,
  [ScalarType.UINT64]: uint64,
  [ScalarType.FIXED64]: uint64,
  [ScalarType.BOOL]: fc.boolean(),
  [ScalarType.STRING]: text,
  [ScalarType.BYTES]: bytes,
};

/** Timestamps of whole microseconds, the precision of Postgres. */
const timestamp = fc.record({
  seconds: fc.bigInt({ min: -62_135_596_800n, max: 253_402_300_799n }),
  nanos: fc.nat(999_999).map((us) => us * 1000),
});
const duration = fc
  .bigInt({ min: -315_576_000_000_000_000n, max: 315_576_000_000_000_000n })
  .map((us) => ({ seconds: us / 1_000_000n, nanos: Number(us % 1_000_000n) * 1000 }));

/** Random messages of a schema. */
export function messagesOf(schema: DescMessage): fc.Arbitrary<Message> {
  return initOf(schema).map((init) => create(schema, init as never));
}

function initOf(schema: DescMessage): fc.Arbitrary<Record<string, unknown>> {
  const plain = schema.fields.filter((field) => field.oneof === undefined);
  const fields = plain.map((field) => fieldOf(field).map((value) => [field.localName, value] as const));
  const oneofs = schema.oneofs.map((oneof) =>
    fc
      .oneof(
        fc.constant(undefined),
        ...oneof.fields.map((field) => valueFor(field).map((value) => ({ case: field.localName, value }))),
      )
      .map((value) => [oneof.localName, value] as const),
  );
  return fc
    .tuple(...fields, ...oneofs)
    .map((entries) => Object.fromEntries(entries.filter(([, value]) => value !== undefined)));
}

function fieldOf(field: DescField): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case "list":
      return fc.array(valueFor(field), { maxLength: 5 });
    case "map":
      return fc
        .array(fc.tuple(scalars[field.mapKey], valueFor(field)), { maxLength: 4 })
        .map((entries) => Object.fromEntries(entries.map(([key, value]) => [String(key), value])));
    default:
      return fc.option(valueFor(field), { nil: undefined });
  }
}

function valueFor(field: DescField): fc.Arbitrary<unknown> {
  if (field.enum !== undefined) {
    return fc.oneof(fc.constantFrom(...field.enum.values.map(({ number }) => number)), int32);
  }
  const { message } = field;
  if (message === undefined) return scalars[field.scalar as ScalarType];
  // protobuf-es has the value alone, except in lists and maps.
  if (isWrapperDesc(message)) {
    const value = scalars[message.fields[0]!.scalar as ScalarType];
    return field.fieldKind === "message" && field.oneof === undefined
      ? value
      : value.map((each) => create(message, { value: each } as never));
  }
  if (message.typeName === "google.protobuf.Timestamp") return timestamp.map((each) => create(message, each as never));
  if (message.typeName === "google.protobuf.Duration") return duration.map((each) => create(message, each as never));
  return initOf(message).map((init) => create(message, init as never));
}
