"""From a trial's logits to a policy that says where each input leaves, and what that policy costs."""
