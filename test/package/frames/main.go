// Reads the vectors' frames, given as lines of hex, and writes for each what protovalidate says: a line that is "valid",
// "unreadable" or the rules that the frame breaks. The first line is the option of acme.v1.Order, which the program links
// beside the frames.
package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"buf.build/go/protovalidate"
	acmev1 "example.com/acme/gen/acme/v1"
	errorsv1 "example.com/acme/gen/hawser/errors/v1"
	peerv1 "example.com/acme/gen/hawser/peer/v1"
	"google.golang.org/protobuf/proto"
)

func main() {
	field := (&acmev1.Order{}).ProtoReflect().Descriptor().Fields().ByNumber(1)
	fmt.Println(proto.GetExtension(field.Options(), acmev1.E_Owner), errorsv1.ErrorCode_ERROR_CODE_BUSY.Number())
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64*1024*1024)
	for lines.Scan() {
		fmt.Println(outcome(lines.Text()))
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}

func outcome(line string) string {
	body, err := hex.DecodeString(line)
	if err != nil {
		panic(err)
	}
	frame := &peerv1.Frame{}
	if err := proto.Unmarshal(body, frame); err != nil {
		return "unreadable"
	}
	err = protovalidate.Validate(frame)
	if err == nil {
		return "valid"
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		panic(err)
	}
	rules := make([]string, len(invalid.Violations))
	for index, violation := range invalid.Violations {
		rules[index] = violation.Proto.GetRuleId()
	}
	return strings.Join(rules, ",")
}
