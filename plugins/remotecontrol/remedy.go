package remotecontrol

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// What a person can do, for the status.
const (
	signInRemedy  = "sign in with ChatGPT; it is noticed at once, and looked for each second"
	waitRemedy    = "nothing: it is tried again"
	blockedRemedy = "check the proxy, VPN and network that this host is behind; quote the cf-ray to the backend's operator"
	policyRemedy  = "do what the server says, with this account; it is tried again, and at once after a new sign-in"
	urlRemedy     = "correct url in the transport block"
	grantRemedy   = "grant it to this transport in the host's configuration"
	nameRemedy    = "restart the host with a program at its terminal that sends initialize, or without the stdio transport"
	twiceRemedy   = "end the other host that uses this installation, or give this one an installation_id_file of its own"
)

// networkRemedy is what helps against an error of a request that was not
// answered.
func networkRemedy(err error) string {
	var (
		unknown *tls.CertificateVerificationError
		refused *proxyRefusal
		dns     *net.DNSError
	)
	switch {
	case errors.As(err, &unknown) && errors.As(unknown.Err, new(x509.UnknownAuthorityError)):
		return "if a proxy inspects TLS, or the backend is self-hosted: set ca_file to its authority's certificate"
	case errors.As(err, &refused) && refused.code == http.StatusProxyAuthRequired:
		return "correct the user and the password of the proxy"
	case errors.As(err, &refused):
		return "ask the proxy's administrator to let this host through"
	case errors.As(err, &dns):
		return "check the network, the name server and url"
	}
	return waitRemedy
}

// notGranted is the refusal to start without a grant.
func notGranted(err error) error {
	if errors.Is(err, pluginsdk.ErrNotGranted) {
		return &refusal{text: err.Error() + "; " + grantRemedy, class: pluginsdk.ErrNotGranted}
	}
	return err
}
