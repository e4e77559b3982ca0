package rpc

import (
	"encoding/json"

	"github.com/transporthost/transporthost/shared/transport"
	pb "github.com/transporthost/transporthost/shared/transportpb"
)

// convert.go and the two halves are the only places that name both the wire
// types and the domain types.

func localityToProto(l transport.Locality) pb.Locality {
	switch l {
	case transport.Local:
		return pb.Locality_LOCALITY_LOCAL
	case transport.Remote:
		return pb.Locality_LOCALITY_REMOTE
	}
	return pb.Locality_LOCALITY_UNSPECIFIED
}

func localityFromProto(l pb.Locality) transport.Locality {
	switch l {
	case pb.Locality_LOCALITY_LOCAL:
		return transport.Local
	case pb.Locality_LOCALITY_REMOTE:
		return transport.Remote
	}
	return 0
}

func capabilitiesToProto(c transport.Capabilities) []pb.Capability {
	var out []pb.Capability
	add := func(on bool, v pb.Capability) {
		if on {
			out = append(out, v)
		}
	}
	add(c.Drain, pb.Capability_CAPABILITY_DRAIN)
	add(c.SetEnabled, pb.Capability_CAPABILITY_SET_ENABLED)
	add(c.AuthStrictness, pb.Capability_CAPABILITY_AUTH_STRICTNESS)
	add(c.CredentialsChanged, pb.Capability_CAPABILITY_CREDENTIALS_CHANGED)
	add(c.Resume, pb.Capability_CAPABILITY_RESUME)
	return out
}

// capabilitiesFromProto leaves out what a newer plugin declares beyond ours.
func capabilitiesFromProto(in []pb.Capability) transport.Capabilities {
	var c transport.Capabilities
	for _, v := range in {
		switch v {
		case pb.Capability_CAPABILITY_DRAIN:
			c.Drain = true
		case pb.Capability_CAPABILITY_SET_ENABLED:
			c.SetEnabled = true
		case pb.Capability_CAPABILITY_AUTH_STRICTNESS:
			c.AuthStrictness = true
		case pb.Capability_CAPABILITY_CREDENTIALS_CHANGED:
			c.CredentialsChanged = true
		case pb.Capability_CAPABILITY_RESUME:
			c.Resume = true
		}
	}
	return c
}

func configToProto(keys []transport.ConfigKey) []*pb.ConfigKey {
	out := make([]*pb.ConfigKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, &pb.ConfigKey{
			Name: k.Name, Type: string(k.Type), Required: k.Required, Help: k.Help,
			Allowed: k.Allowed, Keys: configToProto(k.Keys),
		})
	}
	return out
}

// maxConfigDepth bounds the nesting of a plugin's declared keys.
const maxConfigDepth = 8

func configFromProto(keys []*pb.ConfigKey, depth int) []transport.ConfigKey {
	if len(keys) == 0 || depth > maxConfigDepth {
		return nil
	}
	out := make([]transport.ConfigKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, transport.ConfigKey{
			Name: k.GetName(), Type: transport.ConfigType(k.GetType()), Required: k.GetRequired(), Help: k.GetHelp(),
			Allowed: k.GetAllowed(), Keys: configFromProto(k.GetKeys(), depth+1),
		})
	}
	return out
}

func descriptionToProto(d transport.Description) *pb.DescribeResponse {
	return &pb.DescribeResponse{
		Name: d.Name, Version: d.Version, Locality: localityToProto(d.Locality),
		Capabilities: capabilitiesToProto(d.Capabilities), Config: configToProto(d.Config),
	}
}

func descriptionFromProto(d *pb.DescribeResponse) transport.Description {
	return transport.Description{
		Name: d.GetName(), Version: d.GetVersion(), Locality: localityFromProto(d.GetLocality()),
		Capabilities: capabilitiesFromProto(d.GetCapabilities()), Config: configFromProto(d.GetConfig(), 0),
	}
}

func strictnessToProto(s transport.AuthStrictness) pb.AuthStrictness {
	switch s {
	case transport.AllowRecoverable:
		return pb.AuthStrictness_AUTH_STRICTNESS_ALLOW_RECOVERABLE
	case transport.RequireReady:
		return pb.AuthStrictness_AUTH_STRICTNESS_REQUIRE_READY
	}
	return pb.AuthStrictness_AUTH_STRICTNESS_UNSPECIFIED
}

func strictnessFromProto(s pb.AuthStrictness) transport.AuthStrictness {
	switch s {
	case pb.AuthStrictness_AUTH_STRICTNESS_ALLOW_RECOVERABLE:
		return transport.AllowRecoverable
	case pb.AuthStrictness_AUTH_STRICTNESS_REQUIRE_READY:
		return transport.RequireReady
	}
	return 0
}

func startToProto(p transport.StartParams) *pb.StartRequest {
	out := &pb.StartRequest{
		Instance: p.Instance, Incarnation: int64(p.Incarnation), Config: p.Config,
		AuthStrictness: strictnessToProto(p.AuthStrictness), Enabled: p.Enabled, MaxMessageBytes: int64(p.MaxMessageBytes),
	}
	for _, f := range p.Inherited {
		out.Inherited = append(out.Inherited, &pb.Inherited{Name: f.Name, Fd: int32(f.FD), Url: f.URL})
	}
	for _, r := range p.Resume {
		out.Resume = append(out.Resume, &pb.Resume{
			Conn: uint64(r.Conn), Key: string(r.Key), Cursor: []byte(r.Cursor), Checkpoint: r.Checkpoint, NextSeq: uint64(r.NextSeq),
		})
	}
	return out
}

func startFromProto(p *pb.StartRequest) transport.StartParams {
	out := transport.StartParams{
		Instance: p.GetInstance(), Incarnation: int(p.GetIncarnation()), Config: json.RawMessage(p.GetConfig()),
		AuthStrictness: strictnessFromProto(p.GetAuthStrictness()), Enabled: p.GetEnabled(), MaxMessageBytes: int(p.GetMaxMessageBytes()),
	}
	for _, f := range p.GetInherited() {
		out.Inherited = append(out.Inherited, transport.Inherited{Name: f.GetName(), FD: int(f.GetFd()), URL: f.GetUrl()})
	}
	for _, r := range p.GetResume() {
		out.Resume = append(out.Resume, transport.Resume{
			Conn: transport.ConnID(r.GetConn()), Key: transport.ResumeKey(r.GetKey()), Cursor: transport.Cursor(r.GetCursor()),
			Checkpoint: r.GetCheckpoint(), NextSeq: transport.Seq(r.GetNextSeq()),
		})
	}
	return out
}

func statusToProto(s transport.Status) *pb.ReportStatusCall {
	return &pb.ReportStatusCall{State: s.State, Ready: s.Ready, Cause: s.Cause, Remedy: s.Remedy, Details: s.Details}
}

func statusFromProto(s *pb.ReportStatusCall) transport.Status {
	return transport.Status{State: s.GetState(), Ready: s.GetReady(), Cause: s.GetCause(), Remedy: s.GetRemedy(), Details: s.GetDetails()}
}

func credentialsToProto(c transport.Credentials) *pb.Credentials {
	return &pb.Credentials{AccessToken: string(c.AccessToken), AccountId: c.AccountID, Generation: c.Generation, Fedramp: c.FedRAMP}
}

func credentialsFromProto(c *pb.Credentials) transport.Credentials {
	return transport.Credentials{
		AccessToken: transport.Secret(c.GetAccessToken()), AccountID: c.GetAccountId(), Generation: c.GetGeneration(), FedRAMP: c.GetFedramp(),
	}
}
