//lint:file-ignore SA1019 NSX has deprecated its load balancer as a whole

package nsxsdk

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/vmware/vsphere-automation-sdk-go/runtime/data"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/domains"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/domains/groups"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/domains/groups/members"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/model"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestLayer7(t *testing.T) {
	srv, c := connect(t, nsxsim.Options{})
	made, _, err := nsxsim.NewCertificate("app.example")
	ok(t, "making a certificate", err)
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	ok(t, "its key", err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})

	certificates := infra.NewCertificatesClient(c)
	certificate, err := certificates.Update("app", model.TlsTrustData{PemEncoded: ptr(string(text)), PrivateKey: ptr(string(key))})
	ok(t, "certificate", err)
	if !*certificate.HasPrivateKey || *certificate.TlsCertificateType != model.TlsCertificate_TLS_CERTIFICATE_TYPE_SIGNED ||
		*certificate.Details[0].SubjectCn != "nsxsim" || *certificate.Details[0].NotAfter == 0 {
		t.Errorf("certificate: %+v", certificate)
	}
	list, err := certificates.List(nil, nil, nil, nil, nil, nil, nil, nil)
	ok(t, "list of certificates", err)
	if *list.ResultCount != 1 {
		t.Errorf("certificates: %+v", list)
	}
	profile, err := infra.NewLbClientSslProfilesClient(c).Update("strict", model.LBClientSslProfile{Protocols: []string{model.LBClientSslProfile_PROTOCOLS_TLS_V1_2}})
	ok(t, "SSL profile", err)
	if !*profile.IsSecure {
		t.Errorf("SSL profile: %+v", profile)
	}
	pools := infra.NewLbPoolsClient(c)
	pool, err := pools.Update("web", model.LBPool{})
	ok(t, "pool", err)
	servers := infra.NewLbVirtualServersClient(c)
	vs, err := servers.Update("web", model.LBVirtualServer{IpAddress: ptr("10.1.0.1"), Ports: []string{"443"},
		ApplicationProfilePath: ptr("/infra/lb-app-profiles/default-http-lb-app-profile"),
		ClientSslProfileBinding: &model.LBClientSslProfileBinding{DefaultCertificatePath: certificate.Path, SslProfilePath: profile.Path,
			SniCertificatePaths: []string{*certificate.Path}},
		Rules: []model.LBRule{{
			MatchConditions: []*data.StructValue{structOf(t, model.LBHttpRequestUriCondition{
				Uri: ptr("/app"), MatchType: ptr(model.LBHttpRequestUriCondition_MATCH_TYPE_STARTS_WITH), Type_: model.LBRuleCondition_TYPE_LBHTTPREQUESTURICONDITION,
			}, model.LBHttpRequestUriConditionBindingType())},
			Actions: []*data.StructValue{structOf(t, model.LBSelectPoolAction{
				PoolId: pool.Path, Type_: model.LBRuleAction_TYPE_LBSELECTPOOLACTION}, model.LBSelectPoolActionBindingType())},
		}}})
	ok(t, "virtual server", err)
	if *vs.Rules[0].Phase != model.LBRule_PHASE_HTTP_FORWARDING || *vs.ClientSslProfileBinding.ClientAuth != model.LBClientSslProfileBinding_CLIENT_AUTH_IGNORE {
		t.Errorf("virtual server: %+v", vs)
	}
	realized(t, c, "/infra/lb-virtual-servers/web")
	manager := srv.Get(nsxsim.KindVirtualServer, *vs.UniqueId)
	if len(manager.Strings("rule_ids")) != 1 || srv.Get(nsxsim.KindRule, manager.Strings("rule_ids")[0]) == nil {
		t.Errorf("in the Manager: %v", manager)
	}
	if err := pools.Delete("web", nil); err == nil {
		t.Error("a pool that a rule selects is deleted")
	}
	ok(t, "deleting the pool by force", pools.Delete("web", ptr(true)))
	ok(t, "deleting the virtual server", servers.Delete("web", ptr(true)))
	ok(t, "deleting the certificate", certificates.Delete("app"))
}

func TestSingleExpressions(t *testing.T) {
	_, c := connect(t, nsxsim.Options{})
	ok(t, "group", domains.NewGroupsClient(c).Patch("default", "nodes", model.Group{}))
	expressions := groups.NewIpAddressExpressionsClient(c)
	ok(t, "expression", expressions.Patch("default", "nodes", "e", model.IPAddressExpression{
		ResourceType: model.Expression_RESOURCE_TYPE_IPADDRESSEXPRESSION, IpAddresses: []string{"10.0.0.1"}}))
	ok(t, "adding", expressions.Create("default", "nodes", "e", model.IPAddressList{IpAddresses: []string{"10.0.0.2"}}, groups.IpAddressExpressions_CREATE_ACTION_ADD))
	ok(t, "removing", expressions.Create("default", "nodes", "e", model.IPAddressList{IpAddresses: []string{"10.0.0.1"}}, groups.IpAddressExpressions_CREATE_ACTION_REMOVE))
	list, err := members.NewIpAddressesClient(c).List("default", "nodes", nil, nil, nil, nil, nil, nil, nil)
	ok(t, "addresses", err)
	if len(list.Results) != 1 || list.Results[0] != "10.0.0.2" {
		t.Errorf("addresses: %v", list.Results)
	}
	ok(t, "deleting the expression", expressions.Delete("default", "nodes", "e"))
}
