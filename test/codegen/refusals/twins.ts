import { fn, goodError, type RefusalCase, table } from "./spec-text.js";

/** Two elements with one name. */
export const twinCases: readonly RefusalCase[] = [
  {
    name: "two tables of one name",
    proto: `${table("int32 id = 1;")}\n${table("int32 id = 1;").replace("message Foo", "message Bar")}`,
    says: 'message Bar: name "foo" is taken by message Foo in FILE; choose another',
  },
  {
    name: "an index with the name of another table",
    proto: `${table("int32 id = 1;")}\nmessage Bar { option (hawser.spec.v1.table) = {name: "bar" primary_key: "id" index: {name: "foo" columns: "id"}}; int32 id = 1; }`,
    says: 'message Bar: name "foo" is taken by message Foo in FILE; choose another',
  },
  {
    name: "two SQL functions of one name",
    proto: `service FooService {
      rpc One(OneRequest) returns (OneResponse) { option (hawser.spec.v1.sql_function) = {name: "foo" body_file: "a.sql"}; }
      rpc Two(TwoRequest) returns (TwoResponse) { option (hawser.spec.v1.sql_function) = {name: "foo" body_file: "a.sql"}; }
    }
    message OneRequest {} message TwoRequest {} message OneResponse { int32 id = 1; } message TwoResponse { int32 id = 1; }`,
    says: 'rpc FooService.Two: function "foo" is taken by rpc FooService.One in FILE; choose another',
  },
  {
    name: "two methods of the client of one name",
    proto: `service FooService {
      rpc One(OneRequest) returns (OneResponse) { option (hawser.spec.v1.gateway_function) = {name: "one" method: "foo" changes: false}; }
      rpc Two(TwoRequest) returns (TwoResponse) { option (hawser.spec.v1.gateway_function) = {name: "two" method: "foo" changes: false}; }
    }
    message OneRequest {} message TwoRequest {} message OneResponse {} message TwoResponse {}`,
    says: 'rpc FooService.Two: method of the client "foo" is taken by rpc FooService.One in FILE; choose another',
  },
  {
    name: "two errors of one code",
    proto: `${goodError("lost")}
      enum FooError { FOO_ERROR_UNSPECIFIED = 0;
        // Lost.
        FOO_ERROR_LOST = 1; }
      enum BarError { BAR_ERROR_UNSPECIFIED = 0;
        // Lost.
        BAR_ERROR_LOST = 1; }`,
    says: 'enum BarError.BAR_ERROR_LOST: error "lost" is taken by enum FooError.FOO_ERROR_LOST in FILE; choose another',
  },
  {
    name: "two errors of one wire code",
    proto: `enum FooError { option allow_alias = true; FOO_ERROR_UNSPECIFIED = 0;
      // Lost.
      FOO_ERROR_LOST = 1; FOO_ERROR_GONE = 1; }
      ${goodError("lost")} ${goodError("gone")}`,
    says: "enum FooError.FOO_ERROR_GONE: wire code 1 is taken by lost",
  },
  {
    name: "two groups of settings of one name",
    proto: `message FooSettings { option (hawser.spec.v1.settings) = {title: "Foo"}; bool on = 1 [(hawser.spec.v1.setting) = {default: "true"}]; }
      message Outer { message FooSettings { option (hawser.spec.v1.settings) = {title: "Foo"}; bool on = 1 [(hawser.spec.v1.setting) = {default: "true"}]; } }`,
    says: 'message Outer.FooSettings: group of settings "FooSettings" is taken by message FooSettings in FILE; choose another',
  },
  {
    name: "two parameters that are one without their p_",
    proto: fn("int32 p_id = 1; int32 id = 2;", "int32 k = 1;"),
    says: 'message FooRequest.id: two parameters of Foo are named "id" without their p_',
  },
  {
    name: "a parameter with the name of a result",
    proto: fn("int32 id = 1;", "int32 id = 1;"),
    says: "message FooRequest.id: a result of Foo has the same name; begin the parameter's with p_",
  },
];
