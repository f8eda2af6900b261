"""The operator: watches YTrainJobs and makes, keeps and ends the pods that train.

planner/, manifests/ and status/ are functions of values; reconciler.py carries out what they say, kube.py talks to the
API server, watch.py hears from it, main.py starts the process.
"""
