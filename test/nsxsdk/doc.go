// Package nsxsdk drives the simulated NSX with vsphere-automation-sdk-go, VMware's
// SDK of the Policy API. It is apart from the simulator's own tests because the
// SDK's models take long to compile.
package nsxsdk
