// Command volumes makes a folder for every claim of the cluster's two storage classes.
//
// All nodes are on one machine and see the same disk, so one provisioner serves them all: `standard` ties a volume to
// the node that the scheduler chose, as a local disk would be; `shared` lets every node mount it.
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v11/controller"
)

const name = "ytrain.io/folder"

type folders struct{ root string }

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	root := flag.String("root", "", "where the folders are made")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	ctx := context.Background()
	options := controller.LeaderElection(false)
	controller.NewProvisionController(ctx, client, name, folders{*root}, options).Run(ctx)
}

func (f folders) Provision(
	_ context.Context, claim controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	label, value := core.LabelOSStable, "linux"
	if claim.SelectedNode != nil {
		label, value = core.LabelHostname, claim.SelectedNode.Labels[core.LabelHostname]
	}
	folder := filepath.Join(f.root, claim.PVName)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// The umask took bits away; a pod without fsGroup must be able to write too.
	if err := os.Chmod(folder, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	onNode := core.NodeSelectorRequirement{Key: label, Operator: core.NodeSelectorOpIn, Values: []string{value}}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: claim.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *claim.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.PVC.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.PVC.Spec.Resources.Requests[core.ResourceStorage]},
			// "local" and not "hostPath": the kubelet applies fsGroup to it.
			PersistentVolumeSource: core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: folder}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{
				{MatchExpressions: []core.NodeSelectorRequirement{onNode}},
			}}},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	if volume.Spec.Local == nil || !strings.HasPrefix(volume.Spec.Local.Path, f.root+"/") {
		return &controller.IgnoredError{Reason: "the volume is no folder under " + f.root}
	}
	return os.RemoveAll(volume.Spec.Local.Path)
}
