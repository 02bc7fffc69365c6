/**
 * The message that is measured, described here so that nothing has to be generated for it: about 100 bytes, with a rule for
 * most of its fields.
 */
import { create, createFileRegistry, type DescMessage, setExtension } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MessageOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { FieldRulesSchema, field as fieldOption } from "../../generated/ts/options/buf/validate/validate_pb.js";
import { TopicSchema, topic as topicOption } from "../../generated/ts/options/hawser/v1/topic_pb.js";

const { STRING, INT64, DOUBLE, BOOL } = FieldDescriptorProto_Type;

/** The fields, with their rules. */
const fields = [
  { name: "order_id", type: STRING, rules: { case: "string", value: { minLen: 1n, maxLen: 40n } } },
  { name: "customer", type: STRING, rules: { case: "string", value: { maxBytes: 200n } } },
  { name: "cents", type: INT64, rules: { case: "int64", value: { greaterThan: { case: "gte", value: 0n } } } },
  { name: "weight", type: DOUBLE, rules: { case: "double", value: { finite: true } } },
  { name: "express", type: BOOL, rules: undefined },
  { name: "note", type: STRING, rules: { case: "string", value: { maxLen: 1000n } } },
] as const;

/** The schema, with a topic of its own. */
export function orderSchema(topic: string): DescMessage {
  const options = create(MessageOptionsSchema);
  setExtension(options, topicOption, create(TopicSchema, { topic }));
  const file = create(FileDescriptorProtoSchema, {
    name: "bench/v1/order.proto",
    package: "bench.v1",
    syntax: "proto3",
    messageType: [
      {
        name: "OrderPlaced",
        options,
        field: fields.map(({ name, type, rules }, index) => {
          const fieldOptions = create(FieldOptionsSchema);
          if (rules !== undefined) setExtension(fieldOptions, fieldOption, create(FieldRulesSchema, { type: rules }));
          return { name, number: index + 1, type, label: FieldDescriptorProto_Label.OPTIONAL, options: fieldOptions };
        }),
      },
    ],
  });
  return createFileRegistry(create(FileDescriptorSetSchema, { file: [file] })).getMessage("bench.v1.OrderPlaced")!;
}

/** A sample message; its content varies with the number. */
export function orderOf(number: number): Record<string, unknown> {
  return {
    orderId: `order-${number}`,
    customer: "Anna Bergstrom, Harbour Road 17",
    cents: 129_900n + BigInt(number),
    weight: 1.25,
    express: true,
    note: "leave it at the door, please",
  };
}
