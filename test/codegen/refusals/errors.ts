import { error, type RefusalCase } from "./spec-text.js";

/** Errors. */
export const errorCases: readonly RefusalCase[] = [
  {
    name: "an SQLSTATE that is none",
    proto: error('sqlstate: "5500" exit_status: 70 summary: "x" remedy: "y"'),
    says: 'enum FooError.FOO_ERROR_LOST: sqlstate "5500" is not five of 0-9 and A-Z, or means success; choose one of the class that fits',
  },
  {
    name: "an SQLSTATE that means success",
    proto: error('sqlstate: "00000" exit_status: 70 summary: "x" remedy: "y"'),
    says: 'enum FooError.FOO_ERROR_LOST: sqlstate "00000" is not five of 0-9 and A-Z, or means success; choose one of the class that fits',
  },
  {
    name: "an exit status that means success",
    proto: error('sqlstate: "55000" summary: "x" remedy: "y"'),
    says: "enum FooError.FOO_ERROR_LOST: exit_status 0 is none of 64 usage, 69 away, 70 failed, 73 taken, 75 again, 77 rights, 78 set-up",
  },
  {
    name: "an error without a remedy",
    proto: error('sqlstate: "55000" exit_status: 70 summary: "x"'),
    says: "enum FooError.FOO_ERROR_LOST: the error has no remedy",
  },
  {
    name: "a value among errors that is none",
    proto: error('sqlstate: "55000" exit_status: 70 summary: "x" remedy: "y"').replace(
      "}]; }",
      "}]; FOO_ERROR_ODD = 2; }",
    ),
    says: "enum FooError.FOO_ERROR_ODD: a value of an enum of errors needs the option error",
  },
  {
    name: "an error with number 0",
    proto:
      'enum FooError { FOO_ERROR_LOST = 0 [(hawser.spec.v1.error) = {sqlstate: "55000" exit_status: 70 summary: "x" remedy: "y"}]; }',
    says: "enum FooError.FOO_ERROR_LOST: number 0 means no error; give the error another number",
  },
];
